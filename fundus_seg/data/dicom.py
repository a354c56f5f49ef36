"""Read eye photographs from DICOM files: their pixels as they are shown, and what the header says of the eye.

Taken are ophthalmic photographs, photographs of visible light, and secondary captures, each with one frame of 8 bits.
pydicom decodes them (the extra `dicom`). It is imported when the first DICOM file is read, and never before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.errors import DataError, UsageError, counted, one_line, printable

SUFFIXES = (".dcm", ".dicom")
"""Suffixes of DICOM files. Archives of hospitals export files without one, which `has_mark` knows."""

START = 132
"""Bytes at the start of a file in which `is_marked` finds the mark."""

_MARK = b"DICM"
_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1",  # ophthalmic photography, 8 bits
    "1.2.840.10008.5.1.4.1.1.77.1.5.2",  # ophthalmic photography, 16 bits, of which 8 may be used
    "1.2.840.10008.5.1.4.1.1.77.1.5.5",  # wide field ophthalmic photography, stereographic projection
    "1.2.840.10008.5.1.4.1.1.77.1.5.6",  # the same, with 3D coordinates
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # photograph of visible light
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.7.2",  # secondary capture of several frames, grey
    "1.2.840.10008.5.1.4.1.1.7.4",  # the same, in colours
}
_MODALITIES = ("OP", "XC", "OT", "SC", "")
"""Ophthalmic photography, external-camera photography, other, an old word for secondary capture, and not said."""
_PHOTOMETRIC = {
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"), "colours"),
    **dict.fromkeys(("MONOCHROME1", "MONOCHROME2"), "greys"),
    "PALETTE COLOR": "palette",
}
_EYES = {"R": "OD", "L": "OS", "B": "OU"}
_NEEDED = (
    *("SOPClassUID", "Modality", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("BitsStored", "PixelRepresentation"),
    *("PhotometricInterpretation", "ImageLaterality", "Laterality", "PixelSpacing", "PatientID", "IssuerOfPatientID"),
    "StudyInstanceUID",
)


@dataclass(frozen=True)
class Header:
    """What the header of a DICOM file says of its photograph.

    Attributes:
        height: rows of pixels.
        width: columns of pixels.
        eye: OD (right), OS (left) or OU (both on one photograph); empty if it is not said.
        spacing: height and width of a pixel in mm on the retina; None if it is not said, or not positive.
        patient: the patient's identifier, behind that of its issuer if there is one; empty if it is not said.
        study: the study's identifier; empty if it is not said.
    """

    height: int
    width: int
    eye: str
    spacing: tuple[float, float] | None
    patient: str
    study: str


def is_marked(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a DICOM file."""
    return start[128:START] == _MARK


def has_mark(path: Path) -> bool:
    """Whether a file is a DICOM file by its first bytes. A list of files (DICOMDIR) has the same, and is none."""
    if path.name.upper().startswith("DICOMDIR"):
        return False
    try:
        with path.open("rb") as file:
            return is_marked(file.read(START))
    except OSError:  # told where the file is read
        return False


def read_header(path: Path) -> Header:
    """Read the header alone.

    Raises:
        DataError: the file is no whole DICOM file, or holds no single photograph of 8 bits.
        UsageError: pydicom is not installed.
    """
    read = _pydicom().dcmread
    try:
        header = read(path, stop_before_pixels=True, specific_tags=list(_NEEDED))
        return _checked(path, header)
    except DataError:
        raise
    except Exception as error:  # pydicom may raise any exception when the bytes do not fit the header
        raise _damaged(path, error) from error


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Read the photograph as (H, W, 3) uint8 RGB, as the header says that its values are to be shown.

    Greys of MONOCHROME1 are inverted, palettes and YCbCr become colours. Windows and presentation states are not
    applied, since a photograph is stored as it is shown.

    Raises:
        DataError: as `read_header`, or no decoder is installed for its compression.
        UsageError: pydicom is not installed.
    """
    pydicom = _pydicom()
    from pydicom.pixels import apply_color_lut, pixel_array

    try:
        dataset = pydicom.dcmread(path)
        _checked(path, dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated and not pydicom.pixels.get_decoder(syntax).is_available:
            raise DataError(
                f"compressed as {syntax.name}, for which no decoder is installed; decompress it (as with dcmdjpeg or "
                "gdcmconv --raw), or install the package that pydicom names for it",
                path,
            )
        values = pixel_array(dataset)
        if _PHOTOMETRIC[dataset.PhotometricInterpretation] == "palette":
            values = apply_color_lut(values, dataset)
            if values.dtype.itemsize > 1 and values.max(initial=0) > 255:
                values >>= 8
    except DataError:
        raise
    except Exception as error:  # as in `read_header`
        raise _damaged(path, error) from error
    greys = values.astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        greys = np.uint8(2**dataset.BitsStored - 1) - greys
    return np.ascontiguousarray(np.broadcast_to(greys.reshape(*greys.shape[:2], -1), (*greys.shape[:2], 3)))


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise UsageError('photographs in DICOM files need pydicom: pip install "fundus-seg[dicom]"') from error
    return pydicom


def _checked(path: Path, header: Any) -> Header:
    """What a header says, if it is that of a single photograph of 8 bits."""
    known, modality = str(header.get("SOPClassUID", "")), str(header.get("Modality") or "")
    if known not in _SOP_CLASSES or modality not in _MODALITIES:
        name = getattr(header.get("SOPClassUID"), "name", "") or "a file without a SOP class"
        raise DataError(
            f"{printable(name)}, modality {printable(modality) or 'not said'}, is no photograph of an eye; give "
            "ophthalmic photography, photographs of visible light, or secondary captures",
            path,
        )
    frames = int(header.get("NumberOfFrames") or 1)
    if frames != 1:
        raise DataError(f"{counted(frames, 'frame')}, not one photograph; export each frame as a file of its own", path)
    height, width = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
    if not (height and width):
        raise DataError("no pixels in it; export the photograph again", path)
    interpretation = str(header.get("PhotometricInterpretation", ""))
    samples = 3 if _PHOTOMETRIC.get(interpretation) == "colours" else 1
    if interpretation not in _PHOTOMETRIC or int(header.get("SamplesPerPixel", 1)) != samples:
        raise DataError(
            f"photometric interpretation {printable(interpretation) or 'not said'} with "
            f"{counted(int(header.get('SamplesPerPixel', 1)), 'sample')} a pixel; export it as RGB",
            path,
        )
    if int(header.get("BitsStored") or 8) > 8 or header.get("PixelRepresentation"):
        raise DataError("more than 8 bits a channel, or values below 0; export it with 8 bits", path)
    laterality = str(header.get("ImageLaterality") or header.get("Laterality") or "")
    issuer, patient = (str(header.get(each) or "").strip() for each in ("IssuerOfPatientID", "PatientID"))
    return Header(
        height,
        width,
        _EYES.get(laterality.strip().upper(), ""),
        _spacing(header.get("PixelSpacing")),
        f"{issuer}/{patient}" if issuer and patient else patient,
        str(header.get("StudyInstanceUID") or "").strip(),
    )


def _spacing(given: Any) -> tuple[float, float] | None:
    if given is None or isinstance(given, str) or len(given) != 2:
        return None
    height, width = (float(each) for each in given)
    return (height, width) if 0 < height < math.inf and 0 < width < math.inf else None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"not a whole DICOM file ({one_line(error)}); copy or export it again", path)
