"""Read cases into memory: a photograph with its two masks, at its own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.data.coding import Annotation, Thresholds, merged
from fundus_seg.data.files import Case, Split
from fundus_seg.data.io import Photograph, read_binary_mask, read_mask, read_photograph
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.data.recognise import Witness
from fundus_seg.errors import DataError, Problems


@dataclass(frozen=True)
class Sample:
    """One case in memory: image (H, W, 3) uint8, masks (2, H, W) bool with channels ("disc", "cup")."""

    name: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def read_sample(case: Case, witness: Witness | None = None) -> Sample:
    """Read the photograph and the masks of one case.

    Args:
        case: the case.
        witness: sees the masks of each annotator.

    Raises:
        DataError: a file cannot be read, or photograph and mask differ in size.
    """
    problems = Problems()
    with problems.gather():
        photograph = read_photograph(case.image)
    with problems.gather():
        masks = read_masks(case, witness)
    problems.refuse(f"files of {case.name} cannot be used")
    return join(case, photograph, masks)


def join(case: Case, photograph: Photograph, masks: NDArray[np.bool_]) -> Sample:
    """Make the sample of a case from its photograph and its masks (2, H, W).

    Raises:
        DataError: as `check_fit`.
    """
    check_fit(photograph, masks, case.mask)
    return Sample(case.name, photograph.pixels, masks)


FIT_MARGIN = 0.05
"""By how much the masks must correlate better with the stored than with the turned photograph, to lie on the former."""


def check_fit(photograph: Photograph, masks: NDArray[np.bool_], path: Path) -> None:
    """Check that masks (2, H, W) lie on a photograph as it is shown, turned by its EXIF orientation.

    Raises:
        DataError: the two differ in size; or the masks fit the photograph's stored pixels clearly better than the
            turned ones. The error is about `path`, the file of the masks.
    """
    image = photograph.pixels
    if image.shape[:2] != masks.shape[1:]:
        sizes = f"{frame_text(masks[0])} pixels, but its photograph has {frame_text(image)}"
        if photograph.orientation > 1 and masks.shape[1:] == (image.shape[1], image.shape[0]):
            sizes += f" after its {_turn_text(photograph)}: {_TURN_FIX}"
        raise DataError(sizes, path)
    if may_lie_as_stored(photograph) and masks.any():
        shown, stored = exif_fit(photograph, masks)
        if stored > shown + FIT_MARGIN:
            raise DataError(
                f"fits its photograph as it is stored (correlation {stored:.2f}), not as its "
                f"{_turn_text(photograph)} shows it ({shown:.2f}): {_TURN_FIX}",
                path,
            )


def may_lie_as_stored(photograph: Photograph) -> bool:
    """Whether masks of the photograph's size may have been drawn on its stored pixels, before EXIF turns them."""
    height, width = photograph.pixels.shape[:2]
    return photograph.orientation > 1 and (height == width or photograph.orientation < 5)


_TURN_FIX = "save the photograph upright without EXIF orientation, or draw the mask on the upright photograph"


def _turn_text(photograph: Photograph) -> str:
    return f"EXIF orientation {photograph.orientation}"


_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By EXIF orientation, what turns an upright photograph back as it is stored."""


def exif_fit(photograph: Photograph, masks: NDArray[np.bool_]) -> tuple[float, float]:
    """How well masks (2, H, W) fit a photograph that EXIF turns: as it is shown, and as it is stored.

    The measure is the correlation of the green channel with the labels 0, 1 and 2, since a disc is brighter than the
    retina and its cup brighter still.
    """
    green = Image.fromarray(np.ascontiguousarray(photograph.pixels[..., 1]))
    labels = masks.sum(axis=0, dtype=np.float64).ravel()
    fits = []
    for picture in (green, green.transpose(_UNDO[photograph.orientation])):
        values = np.asarray(picture, np.float64).ravel()
        fits.append(float(np.corrcoef(values, labels)[0, 1]) if values.std() and labels.std() else 0.0)
    return fits[0], fits[1]


def read_masks(case: Case, witness: Witness | None = None) -> NDArray[np.bool_]:
    """Read the masks of one case, (2, H, W) bool, channels ("disc", "cup"), and merge those of several annotators.

    The disc of two binary files is the union of both, since a disc includes its cup.

    Args:
        case: the case.
        witness: sees the masks of each annotator.

    Raises:
        DataError: a file cannot be read, is not in the case's coding, or differs in size from the others.
    """
    problems = Problems()
    by_annotator: list[NDArray[np.bool_]] = []
    for number, files in enumerate(case.masks):
        masks = None
        with problems.gather():
            masks = read_files(files, case.annotation)
            by_annotator.append(masks)
        if witness is not None:
            annotator = f", annotator {number + 1}" if len(case.masks) > 1 else ""
            witness.see(f"{case.domain}/{case.split}{annotator}", files, case.annotation, masks)
    problems.refuse(f"masks of {case.name} cannot be used")
    for files, masks in zip(case.masks, by_annotator, strict=True):
        if masks.shape != by_annotator[0].shape:
            sizes = f"{frame_text(masks[0])} pixels, but {case.mask} has {frame_text(by_annotator[0][0])}"
            raise DataError(sizes, files[0])
    return merged(by_annotator, case.annotation.merge)


def read_files(files: Sequence[Path], annotation: Annotation, *, nested: bool = True) -> NDArray[np.bool_]:
    """Read the masks (2, H, W) bool of one coded file, or of two binary files, disc and cup.

    Args:
        files: one file or two.
        annotation: their coding; the merge is not used.
        nested: whether the disc of two binary files is the union of both. If not, the disc is as its file shows it,
            and may lack pixels of the cup.

    Raises:
        DataError: a file cannot be read, is not in the coding, or the two differ in size.
    """
    coding = annotation.coding
    if len(files) == 1 and coding is not None:
        return read_mask(files[0], coding)
    disc_file, cup_file = files
    limits = (coding.disc, coding.cup) if isinstance(coding, Thresholds) else (None, None)
    disc, cup = (read_binary_mask(file, inside) for file, inside in zip(files, limits, strict=True))
    if disc.shape != cup.shape:
        raise DataError(f"{frame_text(cup)} pixels, but {disc_file} has {frame_text(disc)}", cup_file)
    return np.stack([disc | cup if nested else disc, cup])


def frame_text(pixels: NDArray[np.generic]) -> str:
    """The size of an array (H, W, ...) for messages: width x height."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


class FundusDataset:
    """The cases of one split of one domain, sorted by name, for looking at: `dataset[i]` reads the files of a case.

    Training does not use this class: it takes cases that were resized once (`cache.load_resized`) and draws them in
    `batches.DomainBatches`.

    Args:
        root: a data root, its folder or YAML file, or "phantom".
        domain: key of one of the root's domains: "A".
        split: "train" or "test".

    Raises:
        DataError, UsageError: as `open_root`, `DataRoot.cases` and `read_sample`.
    """

    def __init__(self, root: DataRoot | str | Path, domain: str, split: Split) -> None:
        data_root = root if isinstance(root, DataRoot) else open_root(root)
        self.cases = data_root.cases(domain, split)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.cases[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))
