"""A folder of photographs, most of them of kinds or suffixes that `predict` does not look for; and one as NIfTI."""

import nibabel
from common import Image, eye, np, out_folder

out = out_folder()
picture = Image.fromarray(eye(1)[0])
picture.save(out / "seen.png")
for name, form in (
    ("saved_by_browser.jfif", "JPEG"),
    ("b.jpe", "JPEG"),
    ("c.webp", "WEBP"),
    ("d.gif", "GIF"),
    ("e.ppm", "PPM"),
    ("f.dib", "DIB"),
    ("no_suffix", "PNG"),
):
    picture.save(out / name, format=form)
voxels = eye(2)[0].transpose(1, 0, 2)[:, :, None, None, :]
nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), out / "photo.nii.gz")
