"""Read and write flat NIfTI files; a mask lies in space where its photograph lies."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.data import dicom
from fundus_seg.data.limits import BYTES_PER_PIXEL, decoding, refuse_too_large
from fundus_seg.data.listing import is_dicom
from fundus_seg.data.names import suffix_of
from fundus_seg.errors import DataError, one_line

_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)

_SCALED = 0.01  # largest distance of a scaled value from the whole number that it stands for
_MOST_HEADER = 1 << 20  # bytes before the voxels


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


def read_slice(path: Path) -> NDArray[np.uint8]:
    """Read the only slice of a NIfTI as (H, W, 3), as ITK-SNAP shows it: columns run to the patient's left, rows back.

    A file without an orientation is read in the order in which it is stored. Scalars become greys.

    Raises:
        DataError: the file is no whole NIfTI, or holds no single axial slice of whole numbers from 0 to 255.
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
        refuse_too_large(path, width, height)
        _refuse_spacing(path, image)
        offset = float(image.dataobj.offset)
        if offset > _MOST_HEADER:
            raise DataError(f"its voxels begin at byte {offset:.0f}, so its header is damaged; export it again", path)
        with decoding(width * height, image.get_data_dtype().itemsize + BYTES_PER_PIXEL):
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
