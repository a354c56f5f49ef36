"""Decode PNG, JPEG, BMP and TIFF with Pillow: upright, in 8 bits a channel, or refused in one line.

Pillow's own refusals of what is merely unusual are gone round: a PNG with long texts, a JPEG without its end marker.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fundus_seg.data.limits import decoding, refuse_too_large
from fundus_seg.errors import DataError, one_line

_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF")
_LOSSY = ("JPEG", "MPO")  # MPO: a JPEG file with a second picture in it
_MOST_TEXT, _MOST_TEXTS = 1 << 20, 1 << 24  # bytes of text or of colour profiles in a PNG: of one, and of all
_WITH_PAGES = {"TIFF": "page", "PNG": "frame"}  # what a file may hold several of
_MOST_PAGES = 100  # they are counted up to here
_DEEP = "more than 8 bits a channel; export it with 8 bits"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_NO_DATA = (b"", b"\x5a\x33" * 64, b"\xa5\xcc" * 64)
_ORIENTATION = 0x0112
_pil_limit = threading.Lock()


class Decoded(NamedTuple):
    """The pixels (H, W, 3) of a file, whether its compression was lossy, and its EXIF orientation."""

    pixels: NDArray[np.uint8]
    lossy: bool = False
    orientation: int = 1


def read_picture(path: Path, opaque: bool, start: bytes) -> Decoded:
    """Decode a file.

    Args:
        path: the file.
        opaque: refuse a picture with transparent pixels.
        start: the first bytes of the file.

    Raises:
        DataError: the file is not one whole image of 8 bits a channel, or is too large.
    """
    try:
        try:
            return _decoded(path, path, opaque)
        except ValueError:
            if not start.startswith(_PNG):
                raise
            return _decoded(path, _without_large_texts(path), opaque)
        except OSError:
            if not start.startswith(_JPEG):
                raise
            return _without_end(path, opaque)
    except UnidentifiedImageError as error:
        raise DataError("not an image (PNG, JPEG, BMP, TIFF, NIfTI, DICOM); export it again as PNG", path) from error
    except DataError:
        raise
    except Exception as error:  # a decoder may raise any exception when the bytes do not fit the header
        raise DataError(f"damaged ({one_line(error)}); copy or export it again", path) from error


def _decoded(path: Path, source: Path | io.BytesIO, opaque: bool) -> Decoded:
    """Decode a picture from its file, or from its bytes in memory; `path` stands in errors."""
    with _opened(source) as image:
        refuse_too_large(path, *image.size)
        if image.format in _WITH_PAGES:
            _refuse_pages(path, image, _WITH_PAGES[image.format])
        deep = image.mode.startswith(("I", "F"))
        if not deep and ";16" in str(image.tile):  # PIL silently cuts RGB to 8 bits
            raise DataError(_DEEP, path)
        with decoding(image.width * image.height):
            if opaque and image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                raise DataError("a mask that is partly transparent; export it flattened", path)
            image.info.pop("transparency", None)
            orientation = image.getexif().get(_ORIENTATION)
            turned = orientation in range(2, 9)
            upright = ImageOps.exif_transpose(image) if turned else image
            if deep:
                upright = Image.fromarray(_in_eight_bits(np.asarray(upright), path))
            coloured = upright if upright.mode == "RGB" else upright.convert("RGB")
            return Decoded(np.asarray(coloured), image.format in _LOSSY, orientation if turned else 1)


def _in_eight_bits(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Greys (H, W) of more bits in 8 of them, where no two different ones become one, as in masks of few greys.

    Whole numbers of 0 to 255 stay as they are. Of others with 16 bits, the upper 8 are taken.

    Raises:
        DataError: 8 bits cannot hold them.
    """
    greys = np.unique(values)
    if ((greys >= 0) & (greys <= 255) & (greys % 1 == 0)).all():
        return values.astype(np.uint8)
    if not (values.dtype.kind in "iu" and greys[0] >= 0 and greys[-1] < 1 << 16 and (np.diff(greys >> 8) > 0).all()):
        raise DataError(_DEEP, path)
    return (values >> 8).astype(np.uint8)


def _without_end(path: Path, opaque: bool) -> Decoded:
    """Decode a JPEG that lacks nothing but its end-of-image marker.

    Whatever stands in place of the marker is not decoded then; of a file that was cut off, it changes the last pixels.

    Raises:
        OSError: the file was cut off, or is a progressive one, in which a whole scan may be missing.
    """
    content = path.read_bytes().rstrip(b"\xff")
    with _opened(io.BytesIO(content)) as image:
        progressive = "progressive" in image.info
    first, *others = (_decoded(path, io.BytesIO(content + each + _JPEG_END), opaque) for each in _NO_DATA)
    if progressive or any((first.pixels != other.pixels).any() for other in others):
        raise OSError("image file is truncated")
    return first


def _refuse_pages(path: Path, image: Any, what: str) -> None:
    """Refuse a file of several pages or frames; it may claim any number, so they are counted up to a limit."""
    page = 0
    with contextlib.suppress(EOFError):
        while page < _MOST_PAGES:
            image.seek(page + 1)
            page += 1
    if page:
        number = f"{page + 1}" if page < _MOST_PAGES else f"more than {_MOST_PAGES}"
        raise DataError(f"{number} {what}s are more than one image; export a single {what}", path)


def _without_large_texts(path: Path) -> io.BytesIO:
    """The bytes of a PNG without the texts and colour profiles that Pillow would refuse for their size.

    Such chunks change no pixel. Smaller ones stay, since a text may hold the orientation.
    """
    content = path.read_bytes()
    kept, position, texts = [_PNG], len(_PNG), 0
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 12 + length
        size = 0
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            size = _unpacked_size(content[position + 8 : end - 4])
            texts += size if size <= _MOST_TEXT else 0
        if size <= _MOST_TEXT and (not size or texts <= _MOST_TEXTS):
            kept.append(content[position:end])
        position = end
    kept.append(content[position:])
    return io.BytesIO(b"".join(kept))


def _unpacked_size(text: bytes) -> int:
    """The size of a chunk's text once it is unpacked, or of the chunk; counted up to `_MOST_TEXT` + 1."""
    sizes = [len(text)]
    for start in [at for at, byte in enumerate(text[:512]) if byte == 0x78]:  # where a zlib stream may begin
        with contextlib.suppress(zlib.error):
            sizes.append(len(zlib.decompressobj().decompress(text[start:], _MOST_TEXT)) + 1)
    return max(sizes)


def _opened(source: Path | io.BytesIO) -> Any:
    """Open an image and read its header, without PIL's own limit of pixels: at first, that limit only warns."""
    with _pil_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
