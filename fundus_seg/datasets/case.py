"""One case of a download: read its photograph and its readers' masks, cut the crop, and write both."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import Split
from fundus_seg.data.crop import Crop, as_row, crop_at
from fundus_seg.data.io import Photograph, read_mask, read_photograph, write_mask
from fundus_seg.data.orientation import as_shown, drawn_as_stored
from fundus_seg.data.shown import corners
from fundus_seg.datasets.model import EACH, DataSet, RawCase, Rules
from fundus_seg.datasets.raw import Raw, RawFile
from fundus_seg.datasets.truths import combined
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError
from fundus_seg.protocol import FRAME, STRUCTURES

MOST_STRETCH = 0.02
"""Largest difference of the ratio width / height of a mask and its photograph, for the mask to be resampled."""


@dataclass(frozen=True)
class Written:
    """A case that was written: its row of the manifest, and what is odd about it."""

    row: Mapping[str, Any]
    odd: tuple[str, ...]


def write_case(dataset: DataSet, rules: Rules, raw: Raw, case: RawCase, split: Split, folder: Path) -> Written:
    """Write the photograph and the mask of a case, whose files were fetched, below `folder`; then release the files.

    Raises:
        DataError: a file cannot be used; the error names it by its place in the download.
    """
    paths = {file: path for file in case.files if (path := raw.path(file)) is not None}
    try:
        return _write(dataset, rules, case, split, folder, paths)
    except DataError as error:
        shown = {str(path): file.shown for file, path in paths.items()}
        problem = error.problems[0]
        place = shown.get(str(problem.path), problem.path)
        raise DataError(problem.text, place, problem.line) from error
    finally:
        for file in case.files:
            raw.release(file)


def _write(
    dataset: DataSet, rules: Rules, case: RawCase, split: Split, folder: Path, paths: Mapping[RawFile, Path]
) -> Written:
    photograph = read_photograph(paths[case.photograph])
    height, width = photograph.pixels.shape[:2]
    view = (dataset.columns[0], min(dataset.columns[1], width)) if dataset.columns else None
    odd: list[str] = []
    drawn = _drawn(dataset, rules, case, photograph, paths, odd)
    leaked = 0
    for masks in drawn.values():
        if view and _blank_outside(masks, view):
            odd.append("a mask outside the view that is used, which is left out")
        leaked += _clip_cup(masks)
    if leaked:
        odd.append("a cup that leaves its disc, and is clipped to it")
    structures = min(len(masks) for masks in drawn.values())
    if structures < len(STRUCTURES):
        odd.append("no annotated cup")
    disc = np.any([masks[0] for masks in drawn.values()], axis=0)
    if not disc.any():
        raise DataError("a mask without a disc; download it again", paths[next(iter(case.truths.values()))[0]])
    if corners(disc[:, slice(*view)] if view else disc).all():
        text = "its disc covers the corners of the photograph, so its greys are exchanged; download it again"
        raise DataError(text, paths[next(iter(case.truths.values()))[0]])
    crop = _crop(rules, (width, height), disc, view)
    rois = folder / split / "ROIs"
    if dataset.as_is:
        shutil.copyfile(paths[case.photograph], rois / "image" / f"{case.name}.png")
        mask, target = paths[case.truths[rules.reader][0]], rois / "mask" / f"{case.name}.png"
        if np.array_equal(read_mask(mask), drawn[""]):
            shutil.copyfile(mask, target)
        else:
            write_mask(target, drawn[""], "png")
            odd.append("a mask of labels, which is written as greys")
    else:
        _write_photograph(rois / "image" / f"{case.name}.png", crop.cut(photograph.pixels, 0, smooth=True))
        for reader, masks in drawn.items():
            path = rois / "mask" / reader / f"{case.name}.png"
            path.parent.mkdir(exist_ok=True)
            cut = [crop.cut(mask, False, smooth=False) for mask in masks[:structures]]
            write_mask(path, np.stack([cut[0], cut[1] if structures > 1 else np.zeros_like(cut[0])]), "png")
    truths = case.files[1:]
    row = {
        "set": dataset.name,
        "domain": case.domain,
        "split": split,
        "name": case.name,
        "patient": case.details.patient,
        "eye": case.details.eye,
        "diagnosis": case.details.diagnosis,
        "source": case.photograph.name,
        "sha256": file_digest(paths[case.photograph]),
        "truth": "|".join(file.name for file in truths),
        "truth_sha256": "|".join(file_digest(paths[file]) for file in truths),
        "reader": rules.reader,
        "agreement": rules.agreement or "",
        "structures": "|".join(STRUCTURES[:structures]),
        "roi": "as published" if dataset.as_is else "truth" if rules.crop or rules.scale_to_disc else "whole",
        **as_row(crop),
        "orientation": photograph.orientation,
        "cup_clipped": leaked,
    }
    return Written(row, tuple(dict.fromkeys(odd)))


def _drawn(
    dataset: DataSet,
    rules: Rules,
    case: RawCase,
    photograph: Photograph,
    paths: Mapping[RawFile, Path],
    odd: list[str],
) -> dict[str, NDArray[np.bool_]]:
    """The masks of a case in its photograph's frame (H, W): those of each reader, or those made of them, under ""."""
    frame = photograph.pixels.shape[0], photograph.pixels.shape[1]
    of_reader = {}
    for reader, files in case.truths.items():
        masks = dataset.drawings[reader].read([paths[file] for file in files], frame, rules)
        if drawn_as_stored(photograph, masks):
            odd.append("a mask drawn on the photograph as it is stored, which is turned with it by EXIF")
            masks = as_shown(photograph, masks)
        of_reader[reader] = _fitted(masks, frame, paths[files[0]], odd)
    if rules.reader == EACH:
        return of_reader
    if rules.reader in of_reader:
        return {"": of_reader[rules.reader]}
    structures = min(map(len, of_reader.values()))
    return {"": combined([masks[:structures] for masks in of_reader.values()], rules.reader)}


def _blank_outside(masks: NDArray[np.bool_], view: tuple[int, int]) -> bool:
    """Clear masks (S, H, W) outside the columns (first, end); True if there was anything."""
    outside = np.ones(masks.shape[2], bool)
    outside[slice(*view)] = False
    found = bool(masks[:, :, outside].any())
    masks[:, :, outside] = False
    return found


def _clip_cup(masks: NDArray[np.bool_]) -> int:
    """Clip a cup to its disc; gives the number of its pixels outside. Masks of a disc alone stay as they are."""
    if len(masks) < len(STRUCTURES):
        return 0
    disc, cup = masks
    leaked = int(np.count_nonzero(cup & ~disc))
    cup &= disc
    return leaked


def _fitted(masks: NDArray[np.bool_], frame: tuple[int, int], path: Path, odd: list[str]) -> NDArray[np.bool_]:
    """Masks at the size of their photograph; others are resampled, if their shape is the same."""
    height, width = masks.shape[1:]
    if (height, width) == frame:
        return masks
    sizes = f"{width}x{height} pixels, its photograph has {frame[1]}x{frame[0]}"
    if abs(width / height * frame[0] / frame[1] - 1) > MOST_STRETCH:
        raise DataError(f"{sizes}; download both again", path)
    odd.append("a mask of another size than its photograph, and is resampled to it")
    size = (frame[1], frame[0])
    return np.stack(
        [cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT).view(bool) for mask in masks]
    )


def _crop(rules: Rules, frame: tuple[int, int], disc: NDArray[np.bool_], view: tuple[int, int] | None) -> Crop:
    """The crop about the centre of the disc's box, or the whole view."""
    if rules.crop is None and rules.scale_to_disc is None:
        first, end = view or (0, frame[0])
        return crop_at(frame, ((first + end) / 2, frame[1] / 2), (end - first, frame[1]), view=view)
    rows, columns = (np.flatnonzero(disc.any(axis=axis)) for axis in (1, 0))
    centre = ((columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2)
    if rules.crop is not None:
        return crop_at(frame, centre, rules.crop, view=view)
    diameter = max(int(places[-1] - places[0]) + 1 for places in (rows, columns))
    side = max(1, round((rules.scale_to_disc or 1) * diameter))
    return crop_at(frame, centre, (side, side), view=view, output=(FRAME, FRAME))


def _write_photograph(path: Path, pixels: NDArray[np.uint8]) -> None:
    _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    path.write_bytes(png.tobytes())
