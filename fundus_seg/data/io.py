"""Read and write photographs and masks: PNG, JPEG, BMP, TIFF and NIfTI; and read photographs in DICOM files.

The content of a file decides its format, not its name. Only NIfTI is known by its suffix, `.nii` or `.nii.gz`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import BACKGROUND, CUP, RIM, MaskFormat
from fundus_seg.data import dicom
from fundus_seg.data.coding import DOFE, Coding, Thresholds, decode, decode_binary
from fundus_seg.data.limits import decoding, refuse_too_large
from fundus_seg.data.nifti import is_nifti, read_slice, write_slice
from fundus_seg.data.pictures import Decoded, read_picture
from fundus_seg.errors import DataError, about
from fundus_seg.reading import reading

DECODER_VERSION = 3
"""Part of every cache key. Raise it when a change makes the same file give other pixels, or be refused."""

MASK_SUFFIX: dict[MaskFormat, str] = {"png": ".png", "nifti": ".nii.gz"}


class Photograph(NamedTuple):
    """A photograph as it was read.

    Attributes:
        pixels: (H, W, 3) uint8, turned upright.
        orientation: the EXIF orientation that was applied, 1 to 8; 1 for a photograph that lies as it is stored.
    """

    pixels: NDArray[np.uint8]
    orientation: int


def read_photograph(path: Path) -> Photograph:
    """Read a photograph as `read_image` does, and tell how it was turned.

    Raises:
        DataError: as `read_image`.
    """
    decoded = _read(path)
    return Photograph(decoded.pixels, decoded.orientation)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph as (H, W, 3) uint8 RGB, rotated by its EXIF orientation; transparency is dropped.

    Raises:
        DataError: the file is not one readable 8-bit image, or has more than `MAX_PIXELS`.
    """
    return _read(path).pixels


def read_drawing(path: Path) -> NDArray[np.uint8]:
    """Read the pixels (H, W, 3) of a mask, whatever its coding.

    Raises:
        DataError: the file cannot be read, or is partly transparent.
    """
    return _read(path, opaque=True).pixels


def read_mask(
    path: Path, coding: Coding | Thresholds | Callable[[NDArray[np.uint8]], Coding] = DOFE
) -> NDArray[np.bool_]:
    """Read a mask as (2, H, W) bool, channels ("disc", "cup"); the disc includes the cup.

    The file may be grey, RGB or have a palette; the values of a NIfTI are its greys.

    Args:
        path: the file.
        coding: its coding, or a function that tells it from the pixels (H, W, 3).

    Raises:
        DataError: the file cannot be read, or has colours that are not in the coding.
    """
    decoded = _read(path, opaque=True)
    with about(path), decoding(decoded.pixels[..., 0].size):
        known = coding(decoded.pixels) if callable(coding) else coding
        return decode(decoded.pixels, known, lossy=decoded.lossy)


def read_binary_mask(path: Path, inside: str | None = None) -> NDArray[np.bool_]:
    """Read the mask of one structure, (H, W) bool: the pixels that are not black, in a file of two colours.

    Args:
        path: the file.
        inside: a threshold for the greys inside, as `Thresholds` holds it; the file may then have any greys.

    Raises:
        DataError: the file cannot be read, or has a third colour.
    """
    decoded = _read(path, opaque=True)
    with about(path), decoding(decoded.pixels[..., 0].size):
        return decode_binary(decoded.pixels, lossy=decoded.lossy, inside=inside)


def read_greys(path: Path) -> NDArray[np.uint8]:
    """Read a grey map as (H, W) uint8.

    Raises:
        DataError: the file cannot be read, or is coloured.
    """
    pixels = _read(path, opaque=True).pixels
    if not (pixels == pixels[..., :1]).all():
        raise DataError("a coloured picture, but a grey map is wanted; export it in greys", path)
    return np.ascontiguousarray(pixels[..., 0])


def count_greys(path: Path) -> NDArray[np.int64]:
    """The number of pixels of each grey, (256,), in the first channel of a mask.

    Raises:
        DataError: the file cannot be read.
    """
    return np.bincount(_read(path).pixels[..., 0].ravel(), minlength=256)


def write_mask(path: Path, masks: NDArray[np.bool_], form: MaskFormat, *, like: Path | None = None) -> None:
    """Write masks (2, H, W) as a dofe-coded grey PNG, or as NIfTI labels: 0 background, 1 rim, 2 cup.

    Neither format can hold a cup pixel outside the disc: such pixels are left out, and the disc stays as predicted.
    The NIfTI lies in space like the photograph `like`, as `nifti.write_slice` says.
    """
    disc, cup = masks
    labels = disc.astype(np.uint8) + (disc & cup)
    if form == "nifti":
        write_slice(path, labels, like)
        return
    greys = np.full(256, BACKGROUND, np.uint8)
    greys[1:3] = RIM, CUP
    _, png = cv2.imencode(
        ".png", cv2.LUT(labels, greys)
    )  # flat areas pack as small as with Pillow, in a third of the time
    path.write_bytes(png.tobytes())


def write_probability(
    path: Path, probability: NDArray[np.float32], form: MaskFormat, *, like: Path | None = None
) -> None:
    """Write the probability (H, W) of one structure as a grey PNG of 16 bits, or as a NIfTI of 32-bit floats.

    The grey of the PNG is the probability times 65535, rounded. The NIfTI lies in space as that of `write_mask` does.
    """
    if form == "nifti":
        write_slice(path, probability, like)
        return
    _, png = cv2.imencode(".png", np.rint(probability * np.float32(65535)).astype(np.uint16))
    path.write_bytes(png.tobytes())


def frame_text(pixels: NDArray[np.generic]) -> str:
    """The size of an array (H, W, ...) for messages: width x height."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _read(path: Path, *, opaque: bool = False) -> Decoded:
    """Read the pixels of a file in any format.

    Args:
        path: the file.
        opaque: refuse a picture with transparent pixels, whose hidden colours are not what its author saw.
    """
    try:
        with path.open("rb") as file:
            start = file.read(dicom.START)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror}); check the file and who may read it", path) from error
    if not start:
        raise DataError("not an image: the file is empty; copy or export it again", path)
    with reading(path):
        if is_nifti(path):
            return Decoded(read_slice(path))
        if dicom.is_marked(start):
            return Decoded(_read_dicom(path))
        return read_picture(path, opaque, start)


def _read_dicom(path: Path) -> NDArray[np.uint8]:
    header = dicom.read_header(path)
    refuse_too_large(path, header.width, header.height)
    with decoding(header.width * header.height):
        return dicom.read_pixels(path)
