from __future__ import annotations

import contextlib
import gzip
import os
import struct
import warnings
import zlib

import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image

from fundus_seg.data.coding import Coding, grey
from fundus_seg.data.io import read_binary_mask, read_image, read_mask, write_mask
from fundus_seg.errors import DataError

GREYS = np.array([[0, 0, 128], [128, 255, 255]], dtype=np.uint8)
DISC = np.array([[1, 1, 1], [1, 0, 0]], dtype=bool)
CUP = np.array([[1, 1, 0], [0, 0, 0]], dtype=bool)


def palette(greys):
    image = Image.fromarray(greys.copy()).convert("P")
    image.putpalette([value for grey in range(256) for value in (grey,) * 3])
    return image


def refuse(path, *_):
    raise PermissionError(13, "Permission denied", str(path))


def png_header(width, height):
    """A PNG that promises more pixels than it has."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


COLOURS = np.array([[[250, 120, 60], [0, 40, 200]], [[10, 20, 30], [255, 255, 255]]], dtype=np.uint8)


def deep_rgb_png(path):
    """RGB with 16 bits a channel, which PIL would cut to 8 without a word."""
    cv2.imwrite(str(path), np.full((4, 4, 3), 40_000, dtype=np.uint16))


LABELS = Coding(background=grey(0), rim=grey(1), cup=grey(2))


class TestPhotographs:
    @pytest.mark.parametrize(
        ("suffix", "mode"),
        [
            *((".png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
            *((".tif", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")),
            *((".bmp", mode) for mode in ("RGB", "RGBA", "L", "P", "1")),
            *((".jpg", mode) for mode in ("RGB", "L", "CMYK")),
        ],
    )
    def test_every_eight_bit_mode_becomes_rgb(self, tmp_path, suffix, mode):
        image = Image.fromarray(np.kron(COLOURS, np.ones((16, 16, 1), dtype=np.uint8))).convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        image.save(tmp_path / f"x{suffix}")
        read = read_image(tmp_path / f"x{suffix}")
        expected = np.asarray(image.convert("RGB"), dtype=int)
        assert read.dtype == np.uint8
        assert np.abs(read[4:-4:8, 4:-4:8] - expected[4:-4:8, 4:-4:8]).max() <= (30 if suffix == ".jpg" else 0)

    def test_palette_with_transparency_is_read_without_a_warning(self, tmp_path):
        image = Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
        image.save(tmp_path / "p.png", transparency=bytes([0, 128, 255, 255]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(read_image(tmp_path / "p.png"), image.convert("RGB"))

    def test_exif_orientation_is_applied(self, tmp_path):
        image = Image.new("RGB", (4, 2))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(tmp_path / "turned.jpg").shape == (4, 2, 3)

    def test_what_a_file_is_decides_not_its_name(self, tmp_path):
        Image.fromarray(GREYS).save(tmp_path / "really_png.jpg", format="PNG")
        np.testing.assert_array_equal(read_image(tmp_path / "really_png.jpg")[..., 0], GREYS)

    @pytest.mark.parametrize("name", ["auge links 1.png", "œil-眼-глаз.png", "a.b.c.png", "it's %s {x}.png"])
    def test_names_with_spaces_and_other_letters(self, tmp_path, name):
        Image.fromarray(GREYS).save(tmp_path / name)
        assert read_image(tmp_path / name).shape == (2, 3, 3)

    def test_large_images_below_the_limit_are_read_without_a_warning(self, tmp_path):
        Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")  # PIL warns from 89 million pixels
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(tmp_path / "large.png").shape == (9_000, 10_000, 3)


class TestMasks:
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
    def test_dofe_masks_read_alike(self, tmp_path, image):
        image.save(tmp_path / "mask.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [DISC, CUP])

    @pytest.mark.parametrize("grey", [50, 51, 200, 201])
    def test_few_stray_greys_are_coded_by_the_bounds(self, tmp_path, grey):
        greys = np.full((20, 20), 255, dtype=np.uint8)
        greys[:10] = 128
        greys[3, 3] = grey  # one pixel of 400 is less than half a percent
        Image.fromarray(greys).save(tmp_path / "mask.png")
        disc, cup = read_mask(tmp_path / "mask.png")
        assert (disc[3, 3], cup[3, 3]) == (grey <= 200, grey <= 50)

    def test_unknown_greys_are_refused_by_value_and_share(self, tmp_path):
        greys = np.full((20, 20), 255, dtype=np.uint8)
        greys[:2], greys[2:4] = 90, 0
        Image.fromarray(greys).save(tmp_path / "mask.png")
        with pytest.raises(DataError, match=r"mask\.png: greys \[90\] on 10\.0 % of its pixels"):
            read_mask(tmp_path / "mask.png")

    def test_coloured_mask_is_refused(self, tmp_path):
        Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "mask.png")
        with pytest.raises(DataError, match=r"mask\.png: a coloured mask"):
            read_mask(tmp_path / "mask.png")

    def test_transparent_mask_is_refused_and_an_opaque_one_read(self, tmp_path):
        image = Image.fromarray(np.repeat(GREYS[..., None], 3, axis=2)).convert("RGBA")
        image.save(tmp_path / "opaque.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "opaque.png"), [DISC, CUP])
        image.putalpha(0)
        image.save(tmp_path / "mask.png")
        with pytest.raises(DataError, match=r"mask\.png: a mask that is partly transparent"):
            read_mask(tmp_path / "mask.png")

    @pytest.mark.parametrize("inside", [1, 128, 255])
    def test_binary_masks_hold_black_and_one_more_colour(self, tmp_path, inside):
        Image.fromarray(DISC.astype(np.uint8) * inside).save(tmp_path / "disc.png")
        np.testing.assert_array_equal(read_binary_mask(tmp_path / "disc.png"), DISC)
        Image.fromarray(GREYS).save(tmp_path / "three.png")
        with pytest.raises(
            DataError, match=r"three\.png: greys \[128\] on 33\.3 % .* not of a binary mask \(0 and 255\)"
        ):
            read_binary_mask(tmp_path / "three.png")
        Image.new("L", (3, 2)).save(tmp_path / "black.png")
        assert not read_binary_mask(tmp_path / "black.png").any()

    def test_binary_masks_may_be_photographically_compressed(self, tmp_path):
        disc = np.zeros((64, 64), dtype=bool)
        disc[10:40, 16:50] = True
        Image.fromarray(disc.astype(np.uint8) * 255).save(tmp_path / "disc.jpg", quality=95)
        np.testing.assert_array_equal(read_binary_mask(tmp_path / "disc.jpg"), disc)

    @pytest.mark.parametrize("frame", [(1, 1), (1, 70_000), (300, 1), (37, 41)])
    def test_a_written_mask_is_a_plain_grey_png_to_every_decoder(self, tmp_path, frame):
        disc, cup = np.random.default_rng(0).random((2, *frame)) < 0.5
        write_mask(tmp_path / "mask.png", np.stack([disc, cup]), "png")
        greys = np.where(disc & cup, 0, np.where(disc, 128, 255))
        with Image.open(tmp_path / "mask.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(image, greys)
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED), greys)

    def test_written_png_reads_back(self, tmp_path):
        write_mask(tmp_path / "mask.png", np.stack([DISC, CUP]), "png")
        assert np.asarray(Image.open(tmp_path / "mask.png")).tolist() == GREYS.tolist()
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), [DISC, CUP])


class TestRefusals:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".nii", ".nii.gz"])
    @pytest.mark.parametrize("content", ["empty", "text", "truncated"])
    def test_unreadable_file_is_named(self, tmp_path, suffix, content):
        path = tmp_path / f"bad{suffix}"
        if content == "truncated":
            noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
            if suffix.startswith(".nii"):
                nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
            else:
                Image.fromarray(noise[..., 0]).save(path)
            content = path.read_bytes()[:2000]
        path.write_bytes({"empty": b"", "text": b"not an image"}.get(content, content))
        with pytest.raises(DataError, match=rf"^\S*bad{suffix}: [^\n]*again[^\n]*$"):
            read_image(path)

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of odd TIFF tags
    @pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
    def test_bytes_changed_at_random_are_refused_or_read(self, tmp_path, suffix):
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

    def test_files_that_cannot_be_opened_are_named(self, tmp_path, monkeypatch):
        loop = tmp_path / "loop.png"
        loop.symlink_to(loop)
        with pytest.raises(DataError, match=r"loop\.png: cannot be opened \(Too many levels of symbolic links\)"):
            read_image(loop)
        with pytest.raises(DataError, match=r"gone\.png: cannot be opened \(No such file or directory\)"):
            read_image(tmp_path / "gone.png")
        locked = tmp_path / "locked.png"
        Image.fromarray(GREYS).save(locked)
        locked.chmod(0)
        if os.geteuid() == 0:  # root may read anything, so play the refusal
            monkeypatch.setattr(type(locked), "open", refuse)
        with pytest.raises(
            DataError, match=r"locked\.png: cannot be opened \(Permission denied\); check .* who may read"
        ):
            read_image(locked)

    @pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (10_001, 10_000)])
    def test_huge_images_are_refused_from_their_header(self, tmp_path, width, height):
        (tmp_path / "huge.png").write_bytes(png_header(width, height))
        limit = Image.MAX_IMAGE_PIXELS
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=rf"huge\.png: {width}x{height} pixels, more than 100 million; crop it"):
                read_image(tmp_path / "huge.png")
        assert limit == Image.MAX_IMAGE_PIXELS

    @pytest.mark.parametrize(
        ("suffix", "save"),
        [
            (".png", Image.fromarray(np.arange(400, 416, dtype=np.uint16).reshape(4, 4)).save),
            (".tif", Image.fromarray(np.arange(400, 416, dtype=np.uint16).reshape(4, 4)).save),
            (".tif", Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save),
            (".png", deep_rgb_png),
            (".tif", deep_rgb_png),
        ],
        ids=["grey png", "grey tif", "float tif", "colour png", "colour tif"],
    )
    def test_more_than_eight_bits_are_refused(self, tmp_path, suffix, save):
        save(tmp_path / f"deep{suffix}")
        with pytest.raises(DataError, match=rf"deep{suffix}: (more than 8 bits|not an image)"):
            read_image(tmp_path / f"deep{suffix}")

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_sixteen_bits_that_eight_can_hold_are_read(self, tmp_path, suffix):
        for stored, read in (([0, 1, 2], [0, 1, 2]), ([0, 32768, 65535], [0, 128, 255]), ([65535] * 3, [255] * 3)):
            Image.fromarray(np.array([stored], np.uint16)).save(tmp_path / f"mask{suffix}")
            np.testing.assert_array_equal(
                read_image(tmp_path / f"mask{suffix}"), np.array([[[each] * 3 for each in read]])
            )

    @pytest.mark.parametrize(("suffix", "what"), [("tif", "page"), ("png", "frame")])
    def test_a_file_of_several_pages_or_frames_is_refused(self, tmp_path, suffix, what):
        first, *others = (Image.fromarray(np.full((4, 4), grey, dtype=np.uint8)) for grey in (0, 128, 255))
        path = tmp_path / f"mask.{suffix}"
        first.save(path, save_all=True, append_images=others)
        for read in (read_image, read_mask, read_binary_mask):
            with pytest.raises(DataError, match=rf"mask\.{suffix}: 3 {what}s are more than one image; export a single"):
                read(path)


class TestNifti:
    def test_written_nifti_has_itk_orientation(self, tmp_path):
        write_mask(tmp_path / "mask.nii.gz", np.stack([DISC, CUP]), "nifti")
        image = nibabel.load(tmp_path / "mask.nii.gz")
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_array_equal(image.get_fdata()[..., 0].T, [[2, 2, 1], [1, 0, 0]])

    def test_written_nifti_reads_back(self, tmp_path):
        masks = np.stack([DISC, CUP])
        write_mask(tmp_path / "mask.nii.gz", masks, "nifti")
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", LABELS), masks)

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize(("x", "y"), [(-1, -1), (1, -1), (-1, 1), (1, 1)])
    def test_nifti_is_read_as_itk_snap_shows_it(self, tmp_path, suffix, swapped, x, y):
        """Voxels stored in another order, with the affine that says so, are the same picture; SimpleITK agrees."""
        SimpleITK = pytest.importorskip("SimpleITK")
        stored = GREYS.T[::-x, ::-y, None]
        affine = np.diag([2.0 * x, 3.0 * y, 1.0, 1.0])
        if swapped:
            stored, affine = stored.swapaxes(0, 1), affine[:, [1, 0, 2, 3]]
        path = tmp_path / f"mask{suffix}"
        nibabel.save(nibabel.Nifti1Image(stored, affine), path)
        np.testing.assert_array_equal(read_image(path)[..., 0], GREYS)
        upright = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(upright)[0], GREYS)

    def test_nifti_without_orientation_lies_as_stored_as_in_itk(self, tmp_path):
        SimpleITK = pytest.importorskip("SimpleITK")
        image = nibabel.Nifti1Image(GREYS.T[..., None], None)
        assert image.header["sform_code"] == image.header["qform_code"] == 0
        nibabel.save(image, tmp_path / "mask.nii")
        np.testing.assert_array_equal(read_image(tmp_path / "mask.nii")[..., 0], GREYS)
        itk = SimpleITK.ReadImage(str(tmp_path / "mask.nii"))
        assert itk.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)

    def test_colour_nifti_as_itk_and_as_nifti_s_own_rgb(self, tmp_path):
        SimpleITK = pytest.importorskip("SimpleITK")
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(COLOURS, isVector=True), str(tmp_path / "vector.nii.gz"))
        np.testing.assert_array_equal(read_image(tmp_path / "vector.nii.gz"), COLOURS)
        rgb = np.zeros((2, 2, 1), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        for channel, name in enumerate("RGB"):
            rgb[name] = COLOURS[..., channel].T[..., None]
        nibabel.save(nibabel.Nifti1Image(rgb, np.diag([-1, -1, 1, 1])), tmp_path / "rgb.nii")
        np.testing.assert_array_equal(read_image(tmp_path / "rgb.nii"), COLOURS)

    @pytest.mark.parametrize(
        ("voxels", "affine", "message"),
        [
            (np.zeros((4, 5, 2), np.uint8), np.eye(4), "4x5x2 voxels are more than one slice"),
            (np.zeros((4, 5, 3, 3), np.uint8), np.eye(4), "4x5x3x3 voxels are more than one slice"),
            (np.zeros((1, 4, 5), np.uint8), np.eye(4), "1x4x5 voxels are more than one slice"),
            (np.zeros((4, 5, 1), np.uint8), np.eye(4)[:, [0, 2, 1, 3]], "its slice is not axial"),
            (np.full((4, 5, 1), 300, np.int16), np.eye(4), "values are not whole numbers of 0 to 255"),
            (np.full((4, 5, 1), 0.5, np.float32), np.eye(4), "values are not whole numbers of 0 to 255"),
            (np.full((4, 5, 1), np.nan, np.float32), np.eye(4), "values are not whole numbers of 0 to 255"),
        ],
    )
    def test_nifti_that_is_no_flat_eight_bit_image_is_refused(self, tmp_path, voxels, affine, message):
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "x.nii.gz")
        with pytest.raises(DataError, match=rf"x\.nii\.gz: {message}"):
            read_image(tmp_path / "x.nii.gz")

    def test_huge_nifti_is_refused_from_its_header(self, tmp_path):
        header = nibabel.Nifti1Header()
        header.set_data_shape((30_000, 30_000, 1))
        header["magic"], header["vox_offset"] = b"n+1", 352
        (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
        with pytest.raises(DataError, match="30000x30000 pixels, more than 100 million"):
            read_image(tmp_path / "huge.nii.gz")


@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_a_jpeg_without_its_end_marker_is_whole_and_a_cut_one_is_not(tmp_path, options):
    pixels = np.random.default_rng(0).integers(0, 255, (45, 61, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg", quality=90, **options)
    content = (tmp_path / "whole.jpg").read_bytes()
    for cut in (1, 2):
        (tmp_path / "x.jpg").write_bytes(content[:-cut])
        np.testing.assert_array_equal(read_image(tmp_path / "x.jpg"), read_image(tmp_path / "whole.jpg"))
    for cut in (5, 40, 400, len(content) // 2):
        (tmp_path / "x.jpg").write_bytes(content[:-cut])
        with pytest.raises(DataError, match=r"x\.jpg: damaged \(image file is truncated"):
            read_image(tmp_path / "x.jpg")
    Image.fromarray(pixels).save(tmp_path / "x.jpg", progressive=True)
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:-2])
    with pytest.raises(DataError, match="truncated"):
        read_image(tmp_path / "x.jpg")
