"""Read and write photographs and masks: PNG, JPEG, BMP, TIFF and NIfTI; and read photographs in DICOM files.

The content of a file decides its format, not its name. Only NIfTI is known by its suffix, `.nii` or `.nii.gz`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fundus_seg.builtins import BACKGROUND, CUP, RIM, MaskFormat
from fundus_seg.data import dicom
from fundus_seg.data.coding import DOFE, Coding, Thresholds, decode, decode_binary
from fundus_seg.data.nifti import directions, write_slice
from fundus_seg.errors import DataError, about, one_line
from fundus_seg.reading import reading

DECODER_VERSION = 3
"""Part of every cache key. Raise it when a change makes the same file give other pixels, or be refused."""

MAX_PIXELS = 100_000_000
"""Larger images are refused on the size in their header, before anything is decoded."""

MASK_SUFFIX: dict[MaskFormat, str] = {"png": ".png", "nifti": ".nii.gz"}

_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF")
_LOSSY = ("JPEG", "MPO")  # MPO: a JPEG file with a second picture in it
_SCALED = 0.01  # largest distance of a scaled value from the whole number that it stands for
_pil_limit = threading.Lock()
_MEMORY, _BYTES_PER_PIXEL = 1 << 30, 16  # of all threads that decode; of one pixel at the worst moment
_MOST_HEADER = 1 << 20  # bytes before the voxels of a NIfTI
_MOST_TEXT, _MOST_TEXTS = 1 << 20, 1 << 24  # bytes of text or of colour profiles in a PNG: of one, and of all
_WITH_PAGES = {"TIFF": "page", "PNG": "frame"}  # what a file may hold several of
_MOST_PAGES = 100  # they are counted up to here


class Photograph(NamedTuple):
    """A photograph as it was read.

    Attributes:
        pixels: (H, W, 3) uint8, turned upright.
        orientation: the EXIF orientation that was applied, 1 to 8; 1 for a photograph that lies as it is stored.
    """

    pixels: NDArray[np.uint8]
    orientation: int


class _Decoded(NamedTuple):
    """The pixels (H, W, 3) of a file, whether its compression was lossy, and its EXIF orientation."""

    pixels: NDArray[np.uint8]
    lossy: bool = False
    orientation: int = 1


class _Budget:
    """Memory that threads share while they decode: who asks for more than is left waits until others have ended."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """Wait for `size` bytes and hold them within the block; more than there are means all of them."""
        size = min(size, self._size)
        with self._freed:
            self._freed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._freed:
                self._left += size
                self._freed.notify_all()


_budget = _Budget(_MEMORY)


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
    with about(path), _budget.taking(decoded.pixels.size * _BYTES_PER_PIXEL // 3):
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
    with about(path), _budget.taking(decoded.pixels.size * _BYTES_PER_PIXEL // 3):
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


def _read(path: Path, *, opaque: bool = False) -> _Decoded:
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
        if path.name.lower().endswith((".nii", ".nii.gz")):
            return _Decoded(_read_nifti(path))
        if dicom.is_marked(start):
            return _Decoded(_read_dicom(path))
        return _read_picture(path, opaque, start)


def _read_picture(path: Path, opaque: bool, start: bytes) -> _Decoded:
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


def _decoded(path: Path, source: Path | io.BytesIO, opaque: bool) -> _Decoded:
    """Decode a picture from its file, or from its bytes in memory; `path` stands in errors."""
    with _opened(source) as image:
        _refuse_too_large(path, *image.size)
        if image.format in _WITH_PAGES:
            _refuse_pages(path, image, _WITH_PAGES[image.format])
        deep = image.mode.startswith(("I", "F"))
        if not deep and ";16" in str(image.tile):  # PIL silently cuts RGB to 8 bits
            raise DataError(_DEEP, path)
        with _budget.taking(image.width * image.height * _BYTES_PER_PIXEL):
            if opaque and image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                raise DataError("a mask that is partly transparent; export it flattened", path)
            image.info.pop("transparency", None)
            orientation = image.getexif().get(_ORIENTATION)
            turned = orientation in range(2, 9)
            upright = ImageOps.exif_transpose(image) if turned else image
            if deep:
                upright = Image.fromarray(_in_eight_bits(np.asarray(upright), path))
            coloured = upright if upright.mode == "RGB" else upright.convert("RGB")
            return _Decoded(np.asarray(coloured), image.format in _LOSSY, orientation if turned else 1)


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


_DEEP = "more than 8 bits a channel; export it with 8 bits"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_NO_DATA = (b"", b"\x5a\x33" * 64, b"\xa5\xcc" * 64)
_ORIENTATION = 0x0112


def _without_end(path: Path, opaque: bool) -> _Decoded:
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


def _read_dicom(path: Path) -> NDArray[np.uint8]:
    header = dicom.read_header(path)
    _refuse_too_large(path, header.width, header.height)
    with _budget.taking(header.width * header.height * _BYTES_PER_PIXEL):
        return dicom.read_pixels(path)


def _read_nifti(path: Path) -> NDArray[np.uint8]:
    """Read the only slice of a NIfTI as ITK-SNAP shows it: columns run to the patient's left, rows to the back.

    A file without an orientation is read in the order in which it is stored. Scalars become greys.
    """
    import nibabel

    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)  # it prints what it mends; faults are raised
    try:
        image: Any = nibabel.load(path)
        width, height, *others = image.shape
        coloured = others[-1:] == [3]  # NIfTI's own place for channels is the fifth axis; writers take the third too
        if any(length != 1 for length in (others[:-1] if coloured else others)):
            voxels = "x".join(map(str, image.shape))
            raise DataError(
                f"{voxels} voxels are more than one slice (width x height x 1); export a single slice", path
            )
        _refuse_too_large(path, width, height)
        _refuse_spacing(path, image)
        offset = float(image.dataobj.offset)
        if offset > _MOST_HEADER:
            raise DataError(f"its voxels begin at byte {offset:.0f}, so its header is damaged; export it again", path)
        with _budget.taking(width * height * (image.get_data_dtype().itemsize + _BYTES_PER_PIXEL)):
            values = np.asanyarray(image.dataobj)
            if values.dtype.names is not None:
                values = np.stack([values[name] for name in values.dtype.names[:3]], axis=-1)
            whole = np.rint(values)  # whole numbers that a writer scaled to fit its integers come back a little off
            if not ((whole >= 0) & (whole <= 255) & (abs(values - whole) <= _SCALED)).all():
                raise DataError("values are not whole numbers of 0 to 255; export it with 8 bits", path)
            values = whole.reshape(width, height, -1).astype(np.uint8)
        placed = image.header["sform_code"] or image.header["qform_code"]
        if placed and nibabel.io_orientation(image.affine)[2, 0] != 2:
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
