"""Masks of anybody's photographs: files in, files out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.io import MASK_SUFFIX, MaskFormat, read_image, read_mask, write_mask
from fundus_seg.errors import DataError, listing
from fundus_seg.inference.predict import load_model
from fundus_seg.metrics import dice, vertical_cup_to_disc_ratio
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.records import atomic_path, write_rows
from fundus_seg.viz.overlay import draw_contours

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def predict_folder(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    form: MaskFormat = "png",
    overlay: bool = False,
    truth: Path | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Write `out/NAME.png` (or `.nii.gz`) for each photograph, `out/NAME-overlay.png` if asked, and `out/cases.csv`.

    The CSV has a row a photograph: its size, the pixels of disc and cup, the vertical cup-to-disc ratio and, where a
    true mask of the same name lies in `truth`, its Dice.

    Returns:
        The path of the CSV.

    Raises:
        DataError: no photograph, two of one name, a photograph or true mask that cannot be used.
    """
    photographs = _photographs(images)
    truths = {name: _true_mask(truth, name) for name in photographs} if truth else {}
    predictor = load_model(model)
    rows = []
    with progress.task("predicting", total=len(photographs)) as advance:
        for name, path in photographs.items():
            image = read_image(path)
            true = truths.get(name)
            if true is not None and true.shape[1:] != image.shape[:2]:
                raise DataError(f"{truth}/{name}: the true mask and {path} have different sizes")
            masks = predictor(image)
            with atomic_path(out / f"{name}{MASK_SUFFIX[form]}") as temporary:
                write_mask(temporary, masks, form)
            if overlay:
                with atomic_path(out / f"{name}-overlay.png") as temporary:
                    Image.fromarray(draw_contours(image, masks, true)).save(temporary, format="PNG")
            rows.append(_row(path, masks, true))
            advance()
    write_rows(out / "cases.csv", rows)
    return out / "cases.csv"


def _photographs(images: Sequence[Path]) -> dict[str, Path]:
    """Photographs by stem: the files given, and those directly inside the folders given."""
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if file.suffix.lower() in PHOTOGRAPHS]
            if not inside:
                raise DataError(f"{path}: no photograph in it ({', '.join(PHOTOGRAPHS)})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: no such photograph or folder")
    twice = [name for name, count in Counter(path.stem for path in found).items() if count > 1]
    if twice:
        clashes = [f"{path}: another photograph is named {path.stem} too" for path in found if path.stem in twice]
        raise DataError(listing(clashes, "photographs share a name; predict them into different folders"))
    return {path.stem: path for path in found}


def _true_mask(folder: Path, name: str) -> NDArray[np.bool_] | None:
    path = folder / f"{name}.png"
    return read_mask(path) if path.is_file() else None


def _row(path: Path, masks: NDArray[np.bool_], true: NDArray[np.bool_] | None) -> dict[str, Any]:
    disc, cup = masks
    row: dict[str, Any] = {"photograph": str(path), "height": disc.shape[0], "width": disc.shape[1]}
    row |= {f"{name}_pixels": int(mask.sum()) for name, mask in zip(STRUCTURES, masks, strict=True)}
    row["vertical_cdr"] = vertical_cup_to_disc_ratio(disc, cup)
    if true is not None:
        row |= {f"dsc_{name}": dice(mask, target) for name, mask, target in zip(STRUCTURES, masks, true, strict=True)}
    return row
