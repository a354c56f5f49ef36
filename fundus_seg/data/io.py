"""Photographs and masks, between files and arrays."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fundus_seg.errors import DataError

DECODER_VERSION = 1
"""Part of every cache key: raised when the same file would give other pixels."""

MAX_PIXELS = 100_000_000
"""A larger file is refused from its header: no fundus camera makes one, and decoded it would fill the memory."""

CUP_BELOW, RIM_BELOW = 50, 200
"""dofe coding: grey <= 50 cup, 51-200 rim, > 200 background."""
GREYS = np.array([0, 128, 255], dtype=np.int16)
GREY_TOLERANCE = 8
STRAY_SHARE = {"JPEG": 0.02}
STRAY_SHARE_OTHERWISE = 0.005

MaskFormat = Literal["png", "nifti"]
MASK_SUFFIX: dict[MaskFormat, str] = {"png": ".png", "nifti": ".nii.gz"}


def read_image(path: Path) -> NDArray[np.uint8]:
    """A photograph as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Raises:
        DataError: not a readable 8-bit image.
    """
    return np.asarray(_open(path).convert("RGB"))


def read_mask(path: Path, coding: str = "dofe") -> NDArray[np.bool_]:
    """A mask as (2, H, W) bool, channels ("disc", "cup"); the disc includes the cup.

    The `dofe` coding holds grey 0 for cup, 128 for rim and 255 for background, in one channel, three equal channels
    or a palette.

    Raises:
        DataError: unreadable, coloured, or with greys that the coding does not know.
    """
    image = _open(path)
    channels = np.asarray(image.convert("RGB"))
    grey = channels[..., 0]
    if (channels != grey[..., None]).any():
        raise DataError(f"{path}: a coloured mask; the coding '{coding}' wants grey 0 cup, 128 rim, 255 background")
    counts = np.bincount(grey.ravel(), minlength=256)
    distance = np.abs(np.arange(256)[:, None] - GREYS).min(axis=1)
    strays = counts * (distance > GREY_TOLERANCE)
    stray = int(strays.sum())
    if stray > STRAY_SHARE.get(str(image.format), STRAY_SHARE_OTHERWISE) * grey.size:
        odd = [int(value) for value in np.argsort(-strays)[:3] if strays[value]]
        raise DataError(
            f"{path}: greys {odd} on {100 * stray / grey.size:.1f} % of its pixels are not of the coding '{coding}' "
            "(0 cup, 128 rim, 255 background): export the mask without smoothing"
        )
    return np.stack([grey <= RIM_BELOW, grey <= CUP_BELOW])


def count_greys(path: Path) -> NDArray[np.int64]:
    """How many pixels of a mask have each grey, (256,); of a coloured one, its luminance.

    Raises:
        DataError: unreadable.
    """
    return np.array(_open(path).convert("L").histogram(), dtype=np.int64)


def write_mask(path: Path, masks: NDArray[np.bool_], form: MaskFormat) -> None:
    """Write masks (2, H, W) as a dofe-coded grey PNG, or as NIfTI labels: 0 background, 1 rim, 2 cup.

    Neither can hold a cup pixel outside the disc: such pixels are left out, the disc stays as it was predicted.
    The NIfTI's first axis runs along rows to the right and its second down, with ITK's orientation for a flat image:
    ITK-SNAP and SimpleITK show it as the photograph lies.
    """
    disc, cup = masks
    labels = disc.astype(np.uint8) + (disc & cup)
    if form == "png":
        Image.fromarray(GREYS[::-1][labels].astype(np.uint8)).save(path, format="PNG")
        return
    import nibabel

    flat = nibabel.Nifti1Image(labels.T[..., None], affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    path.write_bytes(gzip.compress(flat.to_bytes(), mtime=0))


def _opened(path: Path) -> Image.Image:
    too_large = f"{path}: too large to be a photograph; crop it to the disc region"
    try:
        image = Image.open(path)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not an image that can be read; export it again as PNG") from error
    except Image.DecompressionBombError as error:
        raise DataError(too_large) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(too_large)
    return image


def _open(path: Path) -> Any:
    """The decoded image, upright; keeps `format`, which PIL's transpose forgets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with _opened(path) as image:
            file_format = image.format
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path}: more than 8 bits a channel ({image.mode}); export it with 8 bits")
            try:
                upright = ImageOps.exif_transpose(image)
            except Exception as error:  # Pillow's decoders raise anything: struct.error, TypeError, ...
                raise DataError(f"{path}: damaged ({error}); export it again") from error
    upright.format = file_format
    return upright
