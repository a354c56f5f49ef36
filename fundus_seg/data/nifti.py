"""The geometry of NIfTI files: a mask lies in space where its photograph lies."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data import dicom
from fundus_seg.data.listing import is_dicom
from fundus_seg.data.names import suffix_of

_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def is_nifti(path: Path) -> bool:
    """Whether a file is a NIfTI by its suffix, `.nii` or `.nii.gz`."""
    return suffix_of(path.name) in (".nii", ".nii.gz")


def directions(image: Any) -> tuple[bool, int, int]:
    """How the axes of a flat NIfTI lie on a picture whose columns run to the patient's left and rows to the back.

    Returns:
        Whether the second axis holds the columns, and 1 or -1 for the columns and for the rows: the step with which the
        picture is read from the file.
    """
    import nibabel

    if not (image.header["sform_code"] or image.header["qform_code"]):
        return False, 1, 1
    (axis, first), (_, second), _ = nibabel.io_orientation(image.affine)
    return (True, -int(second), -int(first)) if axis == 1 else (False, -int(first), -int(second))


PICTURE = "picture"


def lying(path: Path) -> str:
    """How a file's pixels lie: as those of a picture, or as the header of a NIfTI says; equal texts, equal ways."""
    import nibabel

    if not is_nifti(path):
        return PICTURE
    try:
        return str(directions(nibabel.load(path)))
    except Exception:  # of many kinds; told where the file is read
        return PICTURE


def write_slice(path: Path, pixels: NDArray[np.uint8 | np.float32], like: Path | None = None) -> None:
    """Write labels or probabilities (H, W) as a gzipped NIfTI of the same type.

    Args:
        path: the file.
        pixels: as the picture shows them.
        like: the photograph. If it is a NIfTI, the pixels get its affine and zooms, and the same order of voxels. If
            not, the first axis runs to the right and the second down, with ITK's orientation for a flat image: ITK-SNAP
            and SimpleITK show the pixels upright, like the photograph. The spacing is that of a DICOM photograph in mm,
            if its header has one, else 1.
    """
    import nibabel

    if like is None or not is_nifti(like):
        spacing = dicom.read_header(like).spacing if like is not None and is_dicom(like) else None
        height, width = spacing or (1.0, 1.0)
        flat = nibabel.Nifti1Image(pixels.T[..., None], affine=np.diag([-width, -height, 1.0, 1.0]))
        if spacing is not None:
            flat.header.set_xyzt_units("mm")
    else:
        photograph: Any = nibabel.load(like)
        exchanged, columns, rows = directions(photograph)
        voxels = pixels.T[::columns, ::rows]
        header = nibabel.Nifti1Header()
        for field in _GEOMETRY:
            header[field] = photograph.header[field]
        header["pixdim"][4:] = 1  # of time and channels, which a slice does not have
        header.set_data_dtype(pixels.dtype)
        flat = nibabel.Nifti1Image((voxels.T if exchanged else voxels)[..., None], None, header)
    level = 9 if pixels.dtype == np.uint8 else 1  # the last bits of probabilities are noise, which no level packs
    path.write_bytes(gzip.compress(flat.to_bytes(), level, mtime=0))
