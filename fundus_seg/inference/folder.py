"""Predict the masks of photographs in files, and write them as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.builtins import MaskFormat, Precision
from fundus_seg.data.coding import BY_DOFE
from fundus_seg.data.io import MASK_SUFFIX, read_image, write_mask
from fundus_seg.data.listing import photographs as photographs_in
from fundus_seg.data.listing import tell
from fundus_seg.data.mask_files import MaskFiles, find_masks
from fundus_seg.data.names import by_name, file_name, matched
from fundus_seg.errors import CheckpointError, DataError, Problems, about
from fundus_seg.metrics import dice, vertical_cup_to_disc_ratio
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import atomic_path, write_rows
from fundus_seg.viz.overlay import draw_contours


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
    """Predict the masks of photographs and write `out/masks/NAME.png` (or `.nii.gz`) and `out/cases.csv`.

    The CSV has a row for each photograph: its size, the pixels of disc and cup, the vertical cup-to-disc ratio and, if
    `truth` has a mask of the same name, the Dice of disc and cup.

    Args:
        model: folder of a run, or a checkpoint.
        images: photographs, and folders of photographs.
        out: the folder to write to.
        form: format of the masks.
        overlay: whether the contours are also drawn on each photograph: `out/overlays/NAME.png`.
        truth: folder of true masks: PNG files in the coding `dofe` with the names of the photographs.
        precision: as in `Predictor`.
        progress: where the progress is shown.

    Returns:
        The path of the CSV.

    Raises:
        DataError: there is no photograph, or two have the same name; there is no true mask in `truth`; the masks or
            overlays would be written among the inputs; or photographs cannot be used, all of which the error lists,
            after the others are done.
        CheckpointError: the model does not exist, or is not a whole checkpoint of fundus-seg.
    """
    if not model.exists():
        raise CheckpointError(f"{model}: no such run or checkpoint")
    listed = photographs_in(images, written=out)
    photographs = by_name(listed.files, "photograph")
    tell(listed.skipped, progress)
    truths = _truths(truth, photographs) if truth else None
    inputs = [path.parent for path in photographs.values()]
    _keep_apart(out, [*inputs, truth] if truth else inputs)

    from fundus_seg.inference.predict import load_model  # imports torch, only once the arguments are right

    predictor = load_model(model, precision=precision)
    rows = []
    unusable = Problems()
    with progress.task("predicting", total=len(photographs)) as advance:
        for name, path in photographs.items():
            try:
                image, true = _read(name, path, truths)
                with about(path):
                    masks = predictor(image)
            except DataError as error:
                unusable.found += error.problems
                continue
            with atomic_path(out / "masks" / file_name(name, MASK_SUFFIX[form])) as temporary:
                write_mask(temporary, masks, form, like=path)
            if overlay:
                with atomic_path(out / "overlays" / file_name(name, ".png")) as temporary:
                    Image.fromarray(draw_contours(image, masks, true)).save(temporary, format="PNG")
            rows.append(_row(path, masks, true))
            advance()
    missed = sum(row["disc_pixels"] == 0 for row in rows)
    if missed:
        progress.line(f"{missed} of {len(rows)} photographs: no disc found")
    if rows:
        write_rows(out / "cases.csv", rows)
    unusable.refuse(f"photographs cannot be used (the other {len(rows)} are done)")
    return out / "cases.csv"


def _truths(folder: Path, names: Iterable[str]) -> MaskFiles:
    """The true masks of the photographs; a photograph without one gets no scores."""
    masks = find_masks([str(folder)])
    found = {name: masks[other] for name, other in matched(names, masks.keys()).items()}
    if not found:
        raise DataError("holds no mask with the name of a photograph; --truth takes a folder of true masks", folder)
    return MaskFiles(found, BY_DOFE, nested=True)


def _keep_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder in which masks or overlays would be written among the inputs."""
    if {(out / "masks").resolve(), (out / "overlays").resolve()} & {folder.resolve() for folder in inputs}:
        raise DataError("its masks/ or overlays/ hold what was given; choose another --out", out)


def _read(name: str, path: Path, truths: MaskFiles | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A photograph, and its true masks if it has any."""
    image = read_image(path)
    if truths is None or name not in truths.files:
        return image, None
    true = truths.read(name)
    if true.shape[1:] != image.shape[:2]:
        raise DataError(f"of another size than its photograph {path}", truths.files[name][0])
    return image, true


def _row(path: Path, masks: NDArray[np.bool_], true: NDArray[np.bool_] | None) -> dict[str, Any]:
    """A photograph's row of the CSV."""
    disc, cup = masks
    row: dict[str, Any] = {"photograph": str(path), "height": disc.shape[0], "width": disc.shape[1]}
    row |= {f"{name}_pixels": int(mask.sum()) for name, mask in zip(STRUCTURES, masks, strict=True)}
    row["vertical_cdr"] = vertical_cup_to_disc_ratio(disc, cup)
    if true is not None:
        row |= {f"dsc_{name}": dice(mask, target) for name, mask, target in zip(STRUCTURES, masks, true, strict=True)}
    return row
