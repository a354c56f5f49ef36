"""Draw the phantom: four synthetic centres in the layout of the real data, so that everything runs without patients.

A case is made as a real one is: an eye (`phantom.eye`), a camera and an annotator, each with the parameters of its
domain (`phantom.domains`). A network from another centre therefore meets other colours, sharpness, framing, cup sizes
and drawing habits, as it does in a hospital. No number measured on the phantom says anything about patients.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.errors import DataError, UsageError, unknown_name
from fundus_seg.phantom.camera import as_jpeg, expose
from fundus_seg.phantom.canvas import draw
from fundus_seg.phantom.domains import PHANTOM_DOMAINS, Annotator, Camera
from fundus_seg.phantom.eye import CANVAS, NerveHead, grow_nerve_head, reflect
from fundus_seg.phantom.frames import draw_frame
from fundus_seg.phantom.varied import draw_varied
from fundus_seg.protocol import DOMAINS, FRAME
from fundus_seg.runs.atomic import atomic_folder

PHANTOM_VERSION = 1
"""Raise it whenever a picture changes."""
PHANTOM_MARKER = "PHANTOM.json"
"""Name of the file that marks a folder as a phantom."""
_CASE = re.compile(r"phantom-[A-D]-[0-9]{3,}(?![A-Za-z0-9])")
"""How the names of a phantom's files begin."""


def is_phantom_name(name: str) -> bool:
    """Whether a file's name is that of a phantom's photograph or mask, wherever the file lies."""
    return _CASE.match(name) is not None


def make_phantom(
    out: str | Path,
    per_domain: int = 24,
    seed: int = 0,
    *,
    frames: bool = False,
    varied: bool = False,
    on_case: Callable[[], None] | None = None,
) -> Path:
    """Write `OUT/Domain1..4/{train,test}/ROIs/{image,mask}/phantom-<domain>-<index>.png` and `OUT/PHANTOM.json`.

    OUT appears complete or not at all: the work is done in a hidden folder beside it.

    Args:
        out: a new or empty folder.
        per_domain: number of cases in each domain; the first two thirds are the training split.
        seed: seed of every photograph.
        frames: whether whole photographs are drawn (`phantom.frames`), in place of crops around the disc.
        varied: whether every eye has a camera and a reader of its own (`phantom.varied`), in place of its domain's.
        on_case: called after each of the 4 * per_domain cases.

    Returns:
        `out` as a path.

    Raises:
        UsageError: fewer than three cases a domain, a negative seed, or both `frames` and `varied`.
        DataError: OUT is not empty, or cannot be written.
    """
    out = Path(out)
    if per_domain < 3:
        raise UsageError(f"a phantom needs at least 3 cases per domain, got {per_domain}")
    if seed < 0:
        raise UsageError(f"a seed is a whole number, 0 or more, got {seed}")
    if frames and varied:
        raise UsageError("varied eyes are drawn as crops alone: give frames or varied, not both")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError("exists and is not an empty folder; name a new one, or remove it first", out)
    try:
        with atomic_folder(out.resolve()) as staged:
            _write(staged, per_domain, seed, on_case or (lambda: None), frames=frames, varied=varied)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror or error}); name another folder", out) from error
    return out


def draw_case(domain: str, index: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one case: a photograph (FRAME, FRAME, 3) uint8 RGB and its mask (FRAME, FRAME) uint8 in the coding `dofe`.

    The result depends on the arguments alone, not on other cases.

    Raises:
        UsageError: unknown domain.
    """
    if domain not in PHANTOM_DOMAINS:
        raise UsageError(unknown_name("phantom domain", domain, PHANTOM_DOMAINS))
    centre = PHANTOM_DOMAINS[domain]
    streams = np.random.SeedSequence(seed, spawn_key=(list(PHANTOM_DOMAINS).index(domain), index)).spawn(4)
    anatomy, tissue, exposure, hand = (np.random.default_rng(stream) for stream in streams)
    left_eye = anatomy.random() < 0.5
    head = grow_nerve_head(centre.eyes, anatomy)
    light = reflect(head, centre.eyes, tissue)
    mask = annotate(head, centre.annotator, hand)
    if left_eye:  # its temporal side is on the left
        light, mask = light[..., ::-1], mask[..., ::-1]
    return photograph(light, centre.camera, exposure), np.ascontiguousarray(mask)


def photograph(light: NDArray[np.float32], camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph (FRAME, FRAME, 3) uint8 the light (3, CANVAS, CANVAS) that an eye reflects."""
    signal = expose(light, camera, rng)
    signal += camera.noise * rng.standard_normal((CANVAS, CANVAS), np.float32)
    sensor = np.dstack(np.clip(signal + 0.5, 0.0, 255.0).astype(np.uint8))
    frame = np.asarray(cv2.resize(sensor, (FRAME, FRAME), interpolation=cv2.INTER_CUBIC), np.uint8)
    return as_jpeg(frame, camera.jpeg)


def annotate(head: NerveHead, annotator: Annotator, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the mask (FRAME, FRAME) uint8 as an annotator sees the true outlines, with a rim all around the cup."""
    disc = head.disc.redrawn(rng, scale=annotator.disc_scale, wobble=annotator.wobble)
    shift = (annotator.cup_shift * 2 * float(head.cup.radii.mean()), 0.0)
    cup = head.cup.redrawn(rng, scale=annotator.cup_scale, shift=shift, wobble=annotator.wobble)
    mask = np.full((FRAME, FRAME), BACKGROUND, np.uint8)
    for points, grey in ((disc.points(), RIM), (disc.confine(cup.points(), 0.94), CUP)):
        draw(mask, points, (grey,), smooth=False)
    return mask


def _write(root: Path, per_domain: int, seed: int, on_case: Callable[[], None], *, frames: bool, varied: bool) -> None:
    """Write all cases and the marker."""
    drawn = draw_frame if frames else draw_varied if varied else draw_case
    for domain in PHANTOM_DOMAINS:
        for index in range(per_domain):
            split = "train" if index < round(per_domain * 2 / 3) else "test"
            for kind, pixels in zip(("image", "mask"), drawn(domain, index, seed), strict=True):
                folder = root / DOMAINS[domain].folder / split / "ROIs" / kind
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"phantom-{domain}-{index:03d}.png").write_bytes(_png(pixels))
            on_case()
    about = {
        "what": "Synthetic pictures drawn by fundus-seg: no patient was photographed.",
        "version": PHANTOM_VERSION,
        "seed": seed,
        "per_domain": per_domain,
        **({"frames": True} if frames else {}),
        **({"varied": True} if varied else {}),
    }
    (root / PHANTOM_MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a grey or RGB image as PNG; OpenCV takes half as long as Pillow."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", bgr)[1].tobytes()
