"""Masks of anybody's photographs: files in, files out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.builtins import Precision
from fundus_seg.data.io import MASK_SUFFIX, MaskFormat, read_image, read_mask, write_mask
from fundus_seg.errors import DataError, about, listing
from fundus_seg.inference.predict import load_model
from fundus_seg.metrics import dice, vertical_cup_to_disc_ratio
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import atomic_path, write_rows
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
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> Path:
    """Write `out/masks/NAME.png` (or `.nii.gz`) for each photograph, `out/overlays/NAME.png` if asked, `out/cases.csv`.

    The CSV has a row a photograph: its size, the pixels of disc and cup, the vertical cup-to-disc ratio and, where a
    true mask of the same name lies in `truth`, its Dice. `precision` is `Predictor`'s.

    Returns:
        The path of the CSV.

    Raises:
        DataError: no photograph, two of one name, no true mask where `truth` is given, an `out` that holds them, or
            photographs that cannot be used: all of them are named, and the others are done.
    """
    photographs = _photographs(images)
    truths = _truths(truth, photographs) if truth else {}
    _keep_apart(out, [*(path.parent for path in photographs.values()), *(path.parent for path in truths.values())])
    predictor = load_model(model, precision=precision)
    rows, unusable = [], []
    with progress.task("predicting", total=len(photographs)) as advance:
        for name, path in photographs.items():
            try:
                image, true = _read(path, truths.get(name))
                with about(path):
                    masks = predictor(image)
            except DataError as error:
                unusable.append(str(error))
                continue
            with atomic_path(out / "masks" / f"{name}{MASK_SUFFIX[form]}") as temporary:
                write_mask(temporary, masks, form)
            if overlay:
                with atomic_path(out / "overlays" / f"{name}.png") as temporary:
                    Image.fromarray(draw_contours(image, masks, true)).save(temporary, format="PNG")
            rows.append(_row(path, masks, true))
            advance()
    missed = sum(row["disc_pixels"] == 0 for row in rows)
    if missed:
        progress.line(f"{missed} of {len(rows)} photographs: no disc found")
    if rows:
        write_rows(out / "cases.csv", rows)
    if unusable:
        raise DataError(listing(unusable, f"photographs cannot be used (the other {len(rows)} are done)"))
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


def _truths(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """True masks by the name of their photograph; photographs without one are scored by nobody."""
    found = {name: folder / f"{name}.png" for name in names if (folder / f"{name}.png").is_file()}
    if not found:
        raise DataError(f"{folder}: holds no PNG with the name of a photograph; --truth takes a folder of true masks")
    return found


def _keep_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Nothing that was given is written over."""
    if {(out / "masks").resolve(), (out / "overlays").resolve()} & {folder.resolve() for folder in inputs}:
        raise DataError(f"{out}: its masks/ or overlays/ hold what was given; choose another --out")


def _read(path: Path, truth: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    image, true = read_image(path), read_mask(truth) if truth else None
    if true is not None and true.shape[1:] != image.shape[:2]:
        raise DataError(f"{truth}: of another size than its photograph {path}")
    return image, true


def _row(path: Path, masks: NDArray[np.bool_], true: NDArray[np.bool_] | None) -> dict[str, Any]:
    disc, cup = masks
    row: dict[str, Any] = {"photograph": str(path), "height": disc.shape[0], "width": disc.shape[1]}
    row |= {f"{name}_pixels": int(mask.sum()) for name, mask in zip(STRUCTURES, masks, strict=True)}
    row["vertical_cdr"] = vertical_cup_to_disc_ratio(disc, cup)
    if true is not None:
        row |= {f"dsc_{name}": dice(mask, target) for name, mask, target in zip(STRUCTURES, masks, true, strict=True)}
    return row
