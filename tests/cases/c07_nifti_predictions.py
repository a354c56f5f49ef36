"""True masks as PNG; predictions of the same labels as NIfTI, written in the ways that people write them.

Each way holds the very same labels, so that a right reading scores 100 %.
"""

import nibabel
import SimpleITK
from common import eye, np, out_folder, save

out = out_folder()


def nib(array, path, affine=None, **header):
    image = nibabel.Nifti1Image(array, affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def itk(labels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), path)


for number in range(5):
    _, labels = eye(number)
    photo, _ = eye(number)
    name = f"case_{number:03d}"
    save(labels, out / "truth" / f"{name}.png")
    save(labels, out / "png" / f"{name}.png")
    itk(labels, out / "itk_2d" / f"{name}.nii.gz")
    itk(labels[None], out / "itk_one_slice" / f"{name}.nii.gz")
    nib(labels.T, out / "nib_eye_transposed" / f"{name}.nii.gz", np.eye(4))
    nib(labels.T[..., None], out / "nib_eye_transposed_3d" / f"{name}.nii.gz", np.eye(4))
    nib(labels, out / "nib_eye_rows_first" / f"{name}.nii.gz", np.eye(4))
    nib(labels.T, out / "nib_no_affine" / f"{name}.nii.gz", None)
    nib(labels.T, out / "nib_ras_flipped_y" / f"{name}.nii.gz", np.diag([1.0, -1, 1, 1]))
    nib(labels.T[..., None], out / "nib_lps" / f"{name}.nii.gz", np.diag([-1.0, -1, 1, 1]))
    nib(labels.T[..., None, None], out / "nib_4d_singletons" / f"{name}.nii.gz", np.diag([-1.0, -1, 1, 1]))
    nib(labels.T.astype(np.float64)[..., None], out / "float64" / f"{name}.nii.gz", np.diag([-1.0, -1, 1, 1]))
    nib(
        labels.T.astype(np.int64)[..., None].astype(np.int32),
        out / "int32" / f"{name}.nii.gz",
        np.diag([-1.0, -1, 1, 1]),
    )
    image = nibabel.Nifti1Image(labels.T.astype(np.float64)[..., None], np.diag([-1.0, -1, 1, 1]))
    image.header.set_data_dtype(np.int16)  # float values under an integer header: nibabel scales them
    (out / "float_scaled").mkdir(exist_ok=True)
    nibabel.save(image, out / "float_scaled" / f"{name}.nii.gz")
    turned = np.diag([-1.0, -1, 1, 1])
    c, s = np.cos(0.2), np.sin(0.2)
    turned[:2, :2] = [[-c, s], [-s, -c]]
    nib(labels.T[..., None], out / "oblique" / f"{name}.nii.gz", turned)
    nib(labels.T[None], out / "first_axis_single" / f"{name}.nii.gz", np.eye(4))
    # (C, H, W) one-hot, background first
    hot = np.stack([labels == k for k in range(3)]).astype(np.uint8)
    nib(hot, out / "one_hot" / f"{name}.nii.gz", np.eye(4))
    nib(labels.T[..., None], out / "suffix_pred" / f"{name}_pred.nii.gz", np.diag([-1.0, -1, 1, 1]))
    nib(labels.T[..., None], out / "suffix_0000" / f"{name}_0000.nii.gz", np.diag([-1.0, -1, 1, 1]))
    save(labels, out / "png_suffix" / f"{name}_mask.png")
