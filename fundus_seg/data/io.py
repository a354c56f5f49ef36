"""Read and write photographs and masks: PNG, JPEG, BMP, TIFF and NIfTI.

The content of a file decides its format, not its name. Only NIfTI is known by its suffix, `.nii` or `.nii.gz`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fundus_seg.builtins import BACKGROUND, CUP, RIM, MaskFormat
from fundus_seg.data.coding import DOFE, Coding, decode, decode_binary
from fundus_seg.data.nifti import directions, write_labels
from fundus_seg.errors import DataError, about, one_line

DECODER_VERSION = 1
"""Part of every cache key. Raise it when a change makes the same file give other pixels."""

MAX_PIXELS = 100_000_000
"""Larger images are refused on the size in their header, before anything is decoded."""

MASK_SUFFIX: dict[MaskFormat, str] = {"png": ".png", "nifti": ".nii.gz"}

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_LOSSY = ("JPEG", "MPO")  # MPO: a JPEG file with a second picture in it
_SCALED = 0.01  # largest distance of a scaled value from the whole number that it stands for
_pil_limit = threading.Lock()


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph as (H, W, 3) uint8 RGB, rotated by its EXIF orientation; transparency is dropped.

    Raises:
        DataError: the file is not one readable 8-bit image, or has more than `MAX_PIXELS`.
    """
    pixels, _ = _read(path)
    return pixels


def read_mask(path: Path, coding: Coding = DOFE) -> NDArray[np.bool_]:
    """Read a mask as (2, H, W) bool, channels ("disc", "cup"); the disc includes the cup.

    The file may be grey, RGB or have a palette; the values of a NIfTI are its greys.

    Raises:
        DataError: the file cannot be read, or has colours that are not in the coding.
    """
    pixels, lossy = _read(path, opaque=True)
    with about(path):
        return decode(pixels, coding, lossy=lossy)


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """Read the mask of one structure, (H, W) bool: the pixels that are not black, in a file of two colours.

    Raises:
        DataError: the file cannot be read, or has a third colour.
    """
    pixels, lossy = _read(path, opaque=True)
    with about(path):
        return decode_binary(pixels, lossy=lossy)


def count_greys(path: Path) -> NDArray[np.int64]:
    """The number of pixels of each grey, (256,), in the first channel of a mask.

    Raises:
        DataError: the file cannot be read.
    """
    pixels, _ = _read(path)
    return np.bincount(pixels[..., 0].ravel(), minlength=256)


def write_mask(path: Path, masks: NDArray[np.bool_], form: MaskFormat, *, like: Path | None = None) -> None:
    """Write masks (2, H, W) as a dofe-coded grey PNG, or as NIfTI labels: 0 background, 1 rim, 2 cup.

    Neither format can hold a cup pixel outside the disc: such pixels are left out, and the disc stays as predicted.
    The NIfTI lies in space like the photograph `like`, as `nifti.write_labels` says.
    """
    disc, cup = masks
    labels = disc.astype(np.uint8) + (disc & cup)
    if form == "nifti":
        write_labels(path, labels, like)
        return
    greys = np.array([BACKGROUND, RIM, CUP], dtype=np.uint8)
    Image.fromarray(greys[labels]).save(path, format="PNG")


def _read(path: Path, *, opaque: bool = False) -> tuple[NDArray[np.uint8], bool]:
    """Read the pixels (H, W, 3) of a file in any format, and whether its compression was lossy.

    Args:
        path: the file.
        opaque: refuse a picture with transparent pixels, whose hidden colours are not what its author saw.
    """
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror}); check the file and who may read it", path) from error
    if empty:
        raise DataError("not an image: the file is empty; copy or export it again", path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path), False
    return _read_picture(path, opaque)


def _read_picture(path: Path, opaque: bool) -> tuple[NDArray[np.uint8], bool]:
    try:
        with _opened(path) as image:
            _refuse_too_large(path, *image.size)
            if image.format == "TIFF" and image.n_frames > 1:
                raise DataError(f"{image.n_frames} pages are more than one image; export a single page", path)
            if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):  # PIL silently cuts RGB to 8 bits
                raise DataError("more than 8 bits a channel; export it with 8 bits", path)
            if opaque and image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                raise DataError("a mask that is partly transparent; export it flattened", path)
            image.info.pop("transparency", None)
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB")), image.format in _LOSSY
    except UnidentifiedImageError as error:
        raise DataError("not an image (PNG, JPEG, BMP, TIFF, NIfTI); export it again as PNG", path) from error
    except DataError:
        raise
    except Exception as error:  # a decoder may raise any exception when the bytes do not fit the header
        raise DataError(f"damaged ({one_line(error)}); copy or export it again", path) from error


def _opened(path: Path) -> Any:
    """Open an image and read its header, without PIL's own limit of pixels: at first, that limit only warns."""
    with _pil_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_nifti(path: Path) -> NDArray[np.uint8]:
    """Read the only slice of a NIfTI as ITK-SNAP shows it: columns run to the patient's left, rows to the back.

    A file without an orientation is read in the order in which it is stored. Scalars become greys.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        width, height, *others = image.shape
        coloured = others[1:] == [1, 3]
        if any(length != 1 for length in (others[:-1] if coloured else others)):
            voxels = "x".join(map(str, image.shape))
            raise DataError(
                f"{voxels} voxels are more than one slice (width x height x 1); export a single slice", path
            )
        _refuse_too_large(path, width, height)
        _refuse_spacing(path, image)
        values = np.asanyarray(image.dataobj)
        if values.dtype.names is not None:
            values = np.stack([values[name] for name in values.dtype.names[:3]], axis=-1)
        whole = np.rint(values)  # whole numbers that a writer scaled to fit its integers come back a little off
        if not ((whole >= 0) & (whole <= 255) & (abs(values - whole) <= _SCALED)).all():
            raise DataError("values are not whole numbers of 0 to 255; export it with 8 bits", path)
        values = whole.reshape(width, height, -1).astype(np.uint8)
        if (image.header["sform_code"] or image.header["qform_code"]) and nibabel.io_orientation(image.affine)[
            2, 0
        ] != 2:
            raise DataError("its slice is not axial; export it as a flat image", path)
        exchanged, columns, rows = directions(image)
        values = (values.swapaxes(0, 1) if exchanged else values)[::columns, ::rows]
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"not a whole NIfTI file ({one_line(error)}); copy or export it again", path) from error
    return np.ascontiguousarray(np.broadcast_to(values.swapaxes(0, 1), (values.shape[1], values.shape[0], 3)))


def _refuse_spacing(path: Path, image: Any) -> None:
    """Refuse a pixel size that is not positive and finite: the orientation that comes with it cannot be trusted."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:  # unchecked: the check would make a negative size positive
        sizes = image.header_class.from_fileobj(file, check=False)["pixdim"][1:3]
    if not ((sizes > 0) & np.isfinite(sizes)).all() or not np.isfinite(image.affine).all():
        spacing = " x ".join(f"{size:g}" for size in sizes)
        raise DataError(f"spacing {spacing} in its header; export it with a positive one and a finite affine", path)


def _refuse_too_large(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} million"
        raise DataError(f"{width}x{height} pixels, more than {limit}; crop it to the disc region", path)
