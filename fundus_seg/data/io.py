"""Photographs and masks, between files and arrays: PNG, JPEG, BMP, TIFF and NIfTI.

What a file is decides its content, not its name; NIfTI alone goes by its suffix, `.nii` or `.nii.gz`.
"""

from __future__ import annotations

import gzip
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fundus_seg.builtins import MaskFormat
from fundus_seg.data.coding import DOFE, Coding, decode, decode_binary
from fundus_seg.errors import DataError, one_line

DECODER_VERSION = 1
"""Part of every cache key: raised when the same file would give other pixels."""

MAX_PIXELS = 100_000_000
"""Larger images are refused from their header, before anything is decoded."""

MASK_SUFFIX: dict[MaskFormat, str] = {"png": ".png", "nifti": ".nii.gz"}

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_LOSSY = ("JPEG", "MPO")  # MPO: a JPEG with a second picture behind it
_pil_limit = threading.Lock()


def read_image(path: Path) -> NDArray[np.uint8]:
    """A photograph as (H, W, 3) uint8 RGB, turned as its EXIF orientation says; transparency is dropped.

    Raises:
        DataError: not one readable 8-bit image, or more than `MAX_PIXELS`.
    """
    pixels, _ = _read(path)
    return pixels


def read_mask(path: Path, coding: Coding = DOFE) -> NDArray[np.bool_]:
    """A mask as (2, H, W) bool, channels ("disc", "cup"); the disc includes the cup.

    It may be grey, a palette or RGB; of a NIfTI, the values are the greys.

    Raises:
        DataError: unreadable, or with colours that the coding does not know.
    """
    pixels, lossy = _read(path, opaque=True)
    try:
        return decode(pixels, coding, lossy=lossy)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """A mask of one structure as (H, W) bool: what is not black, in a file of two colours.

    Raises:
        DataError: unreadable, or with a third colour.
    """
    pixels, lossy = _read(path, opaque=True)
    try:
        return decode_binary(pixels, lossy=lossy)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def count_greys(path: Path) -> NDArray[np.int64]:
    """How many pixels of a mask have each value, (256,), by its first channel.

    Raises:
        DataError: unreadable.
    """
    pixels, _ = _read(path)
    return np.bincount(pixels[..., 0].ravel(), minlength=256)


def write_mask(path: Path, masks: NDArray[np.bool_], form: MaskFormat) -> None:
    """Write masks (2, H, W) as a dofe-coded grey PNG, or as NIfTI labels: 0 background, 1 rim, 2 cup.

    Neither can hold a cup pixel outside the disc: such pixels are left out, the disc stays as it was predicted.
    The NIfTI's first axis runs along rows to the right and its second down, with ITK's orientation for a flat image:
    ITK-SNAP and SimpleITK show it as the photograph lies.
    """
    disc, cup = masks
    labels = disc.astype(np.uint8) + (disc & cup)
    if form == "png":
        greys = np.array([DOFE.background[0], DOFE.rim[0], DOFE.cup[0]], dtype=np.uint8)
        Image.fromarray(greys[labels]).save(path, format="PNG")
        return
    import nibabel

    flat = nibabel.Nifti1Image(labels.T[..., None], affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    path.write_bytes(gzip.compress(flat.to_bytes(), mtime=0))


def _read(path: Path, *, opaque: bool = False) -> tuple[NDArray[np.uint8], bool]:
    """The pixels (H, W, 3) of any file that can be read, and whether its compression was lossy.

    With `opaque` a picture that is transparent anywhere is refused: the colours below are not what its author saw.
    """
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check the file and who may read it") from error
    if empty:
        raise DataError(f"{path}: not an image: the file is empty; copy or export it again")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path), False
    return _read_picture(path, opaque)


def _read_picture(path: Path, opaque: bool) -> tuple[NDArray[np.uint8], bool]:
    try:
        with _opened(path) as image:
            _refuse_too_large(path, *image.size)
            if image.format == "TIFF" and image.n_frames > 1:
                raise DataError(f"{path}: {image.n_frames} pages are more than one image; export one alone")
            if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):  # PIL cuts deep RGB to 8 bits unasked
                raise DataError(f"{path}: more than 8 bits a channel; export it with 8 bits")
            if opaque and image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                raise DataError(f"{path}: a mask that is partly transparent; export it flattened")
            image.info.pop("transparency", None)
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB")), image.format in _LOSSY
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image (PNG, JPEG, BMP, TIFF, NIfTI); export it again as PNG") from error
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on bytes that are not what the header promised
        raise DataError(f"{path}: damaged ({one_line(error)}); copy or export it again") from error


def _opened(path: Path) -> Any:
    """The image with its header read, under our own limit of pixels in place of PIL's, which only warns at first."""
    with _pil_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_nifti(path: Path) -> NDArray[np.uint8]:
    """The one slice of a NIfTI as ITK-SNAP shows it: columns run to the patient's left, rows to the back.

    Without an orientation, it lies as it is stored. Scalars become greys.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        width, height, *others = image.shape
        coloured = others[1:] == [1, 3]
        if any(length != 1 for length in (others[:-1] if coloured else others)):
            voxels = "x".join(map(str, image.shape))
            raise DataError(f"{path}: {voxels} voxels are more than one slice (width x height x 1); export one alone")
        _refuse_too_large(path, width, height)
        _refuse_spacing(path, image)
        values = np.asanyarray(image.dataobj)
        if values.dtype.names is not None:
            values = np.stack([values[name] for name in values.dtype.names[:3]], axis=-1)
        if not ((values >= 0) & (values <= 255) & (values % 1 == 0)).all():
            raise DataError(f"{path}: values are not whole numbers of 0 to 255; export it with 8 bits")
        values = values.reshape(width, height, -1).astype(np.uint8)
        if image.header["sform_code"] or image.header["qform_code"]:
            (axis, to_right), (_, to_front), (slices, _) = nibabel.io_orientation(image.affine)
            if slices != 2:
                raise DataError(f"{path}: its slice is not axial; export it as a flat image")
            if axis == 1:
                values, to_right, to_front = values.swapaxes(0, 1), to_front, to_right
            values = values[:: -int(to_right), :: -int(to_front)]
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a whole NIfTI file ({one_line(error)}); copy or export it again") from error
    return np.ascontiguousarray(np.broadcast_to(values.swapaxes(0, 1), (values.shape[1], values.shape[0], 3)))


def _refuse_spacing(path: Path, image: Any) -> None:
    """No pixel size that cannot be: with it the affine, and so which side is up, says nothing."""
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:  # unchecked: nibabel would turn a negative size into a positive one
        sizes = image.header_class.from_fileobj(file, check=False)["pixdim"][1:3]
    if not ((sizes > 0) & np.isfinite(sizes)).all() or not np.isfinite(image.affine).all():
        spacing = " x ".join(f"{size:g}" for size in sizes)
        raise DataError(f"{path}: spacing {spacing} in its header; export it with a positive one and a finite affine")


def _refuse_too_large(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million; crop it to the disc region"
        )
