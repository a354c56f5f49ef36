"""The phantom: four synthetic centres in the layout of the real ones, so that everything runs without a patient's data.

A case passes through the same hands as a real one: an eye (`phantom_eye`), a camera, an annotator, each with the habits
of its domain (`phantom_domains`). The network of another centre therefore meets other colours, sharpness, framing, cup
sizes and drawing habits, as it does in a hospital; no number measured on the phantom says anything about patients.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.errors import DataError, UsageError, unknown_name
from fundus_seg.phantom.domains import PHANTOM_DOMAINS, Annotator, Camera
from fundus_seg.phantom.eye import CANVAS, NerveHead, clouds, draw, grow_nerve_head, reflect
from fundus_seg.protocol import DOMAINS

PHANTOM_VERSION = 1  # raise it whenever a picture changes
PHANTOM_MARKER = "PHANTOM.json"
FRAME = 800
CUP, RIM, BACKGROUND = 0, 128, 255


def make_phantom(
    out: str | Path, per_domain: int = 24, seed: int = 0, *, on_case: Callable[[], None] | None = None
) -> Path:
    """Write `OUT/Domain1..4/{train,test}/ROIs/{image,mask}/phantom-<domain>-<index>.png` and `OUT/PHANTOM.json`.

    The first two thirds of each domain's `per_domain` cases are its training split. `on_case` is called after each of
    the 4 * per_domain cases. OUT appears complete or not at all: the work is done in a hidden folder beside it.

    Returns:
        `out` as a path.

    Raises:
        UsageError: fewer than three cases a domain, or a negative seed.
        DataError: OUT holds something already, or cannot be written.
    """
    out = Path(out)
    if per_domain < 3:
        raise UsageError(f"a phantom needs at least 3 cases per domain, got {per_domain}")
    if seed < 0:
        raise UsageError(f"a seed is a whole number from 0, got {seed}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder: name a new one, or remove it first")
    target = out.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            staged = Path(scratch, target.name)
            _write(staged, per_domain, seed, on_case or (lambda: None))
            staged.replace(target)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror or error}): name another folder") from error
    return out


def draw_case(domain: str, index: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Photograph (800, 800, 3) in RGB and mask (800, 800) in 0 cup, 128 rim, 255 background.

    A pure function of its arguments; which cases were drawn before, or how many there will be, changes nothing.

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
    """The camera's file, (FRAME, FRAME, 3), of the light (3, CANVAS, CANVAS) that an eye sends back."""
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j] - rng.normal(0.0, 0.15, (2, 1, 1))
    lamp = 1.0 - camera.falloff * 0.5 * (x * x + y * y) + camera.uneven * clouds(rng, 3)
    light = light * (rng.normal(1.0, 0.12) * lamp).astype(np.float32)
    blur = camera.blur * rng.uniform(0.8, 1.25) * CANVAS / FRAME
    light = np.stack([np.asarray(cv2.GaussianBlur(channel, (0, 0), blur), np.float32) for channel in light])
    light += camera.haze * rng.uniform(0.5, 1.5) * (light.mean(axis=(1, 2), keepdims=True) - light)
    gain = (np.array(camera.gain) * rng.normal(1.0, 0.07, 3)).astype(np.float32)
    signal = 255.0 * np.clip(light * gain[:, None, None], 0.0, 1.0) ** camera.gamma
    signal += camera.noise * rng.standard_normal((CANVAS, CANVAS), np.float32)
    sensor = np.dstack(np.clip(signal + 0.5, 0.0, 255.0).astype(np.uint8))
    file = io.BytesIO()
    frame = cv2.resize(sensor, (FRAME, FRAME), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(frame).save(file, "JPEG", quality=camera.jpeg)
    return np.array(Image.open(file))


def annotate(head: NerveHead, annotator: Annotator, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The mask (FRAME, FRAME) that this hand draws of the true outlines, a rim left all around the cup."""
    disc = head.disc.redrawn(rng, scale=annotator.disc_scale, wobble=annotator.wobble)
    shift = (annotator.cup_shift * 2 * float(head.cup.radii.mean()), 0.0)
    cup = head.cup.redrawn(rng, scale=annotator.cup_scale, shift=shift, wobble=annotator.wobble)
    mask = np.full((FRAME, FRAME), BACKGROUND, np.uint8)
    for points, grey in ((disc.points(), RIM), (disc.confine(cup.points(), 0.94), CUP)):
        draw(mask, points, (grey,), smooth=False)
    return mask


def _write(root: Path, per_domain: int, seed: int, on_case: Callable[[], None]) -> None:
    for domain in PHANTOM_DOMAINS:
        for index in range(per_domain):
            split = "train" if index < round(per_domain * 2 / 3) else "test"
            for kind, pixels in zip(("image", "mask"), draw_case(domain, index, seed), strict=True):
                folder = root / DOMAINS[domain].folder / split / "ROIs" / kind
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"phantom-{domain}-{index:03d}.png").write_bytes(_png(pixels))
            on_case()
    about = {
        "what": "Synthetic pictures drawn by fundus-seg: no patient was photographed.",
        "version": PHANTOM_VERSION,
        "seed": seed,
        "per_domain": per_domain,
    }
    (root / PHANTOM_MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Greys or RGB as a PNG; OpenCV writes one twice as fast as Pillow does."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return cv2.imencode(".png", bgr)[1].tobytes()
