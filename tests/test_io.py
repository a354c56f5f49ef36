from __future__ import annotations

import contextlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from fundus_seg.data.dataset import FundusDataset
from fundus_seg.data.io import read_image, read_mask, write_mask
from fundus_seg.errors import DataError

GREYS = np.array([[0, 0, 128], [128, 255, 255]], dtype=np.uint8)
DISC = np.array([[1, 1, 1], [1, 0, 0]], dtype=bool)
CUP = np.array([[1, 1, 0], [0, 0, 0]], dtype=bool)


def palette(greys):
    image = Image.fromarray(greys.copy()).convert("P")
    image.putpalette([value for grey in range(256) for value in (grey,) * 3])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREYS),
        Image.fromarray(np.repeat(GREYS[..., None], 3, axis=2)),
        palette(GREYS),
        Image.fromarray(np.clip(GREYS.astype(int) + np.array([[3, 8, -8], [7, -5, 0]]), 0, 255).astype(np.uint8)),
    ],
    ids=["grey", "three channels", "palette", "within tolerance"],
)
def test_dofe_masks_read_alike(tmp_path, image):
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [DISC, CUP])


@pytest.mark.parametrize("grey", [50, 51, 200, 201])
def test_few_stray_greys_are_coded_by_the_bounds(tmp_path, grey):
    greys = np.full((20, 20), 255, dtype=np.uint8)
    greys[:10] = 128
    greys[3, 3] = grey  # one pixel of 400 is less than half a percent
    Image.fromarray(greys).save(tmp_path / "mask.png")
    disc, cup = read_mask(tmp_path / "mask.png")
    assert (disc[3, 3], cup[3, 3]) == (grey <= 200, grey <= 50)


def test_unknown_greys_are_refused_by_value_and_share(tmp_path):
    greys = np.full((20, 20), 255, dtype=np.uint8)
    greys[:2], greys[2:4] = 90, 0
    Image.fromarray(greys).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: greys \[90\] on 10\.0 % of its pixels"):
        read_mask(tmp_path / "mask.png")


def test_coloured_mask_is_refused(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: a coloured mask"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
def test_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "bad.png"
    if content is None:
        Image.effect_noise((64, 64), 50).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of odd TIFF tags
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_bytes_changed_at_random_are_refused_or_read(tmp_path, suffix):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"whole.{suffix}", exif=exif)
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    path = tmp_path / f"bad.{suffix}"
    for _ in range(300):
        content = bytearray(whole)
        content[rng.integers(100)] = rng.integers(256)
        path.write_bytes(content[: rng.choice([len(whole), rng.integers(len(whole))], p=[0.9, 0.1])])
        with contextlib.suppress(DataError):
            read_image(path)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (4, 2, 3)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "deep.png")


def test_written_png_reads_back(tmp_path):
    write_mask(tmp_path / "mask.png", np.stack([DISC, CUP]), "png")
    assert np.asarray(Image.open(tmp_path / "mask.png")).tolist() == GREYS.tolist()
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [DISC, CUP])


def test_written_nifti_has_itk_orientation(tmp_path):
    write_mask(tmp_path / "mask.nii.gz", np.stack([DISC, CUP]), "nifti")
    image = nibabel.load(tmp_path / "mask.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(image.get_fdata()[..., 0].T, [[2, 2, 1], [1, 0, 0]])


def test_dataset_gives_typed_samples(draw_root):
    dataset = FundusDataset(draw_root(), "B", "test")
    assert len(dataset) == 4
    sample = dataset[1]
    assert sample.name == "Btest1"
    assert (sample.image.shape, sample.image.dtype) == ((64, 64, 3), np.uint8)
    assert (sample.masks.shape, sample.masks.dtype) == ((2, 64, 64), np.bool_)
    assert (sample.masks[1] <= sample.masks[0]).all()
    assert [sample.name for sample in dataset] == [f"Btest{number}" for number in range(4)]


def test_different_sizes_name_both(draw_root):
    root = draw_root()
    path = root / "Domain1/train/ROIs/mask/Atrain0.png"
    Image.open(path).resize((32, 16), Image.Resampling.NEAREST).save(path)
    with pytest.raises(DataError, match=r"Atrain0\.png: 32x16 pixels, but its photograph has 64x64"):
        FundusDataset(root, "A", "train")[0]
