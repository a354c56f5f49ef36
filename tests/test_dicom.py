"""Photographs in DICOM files that pydicom writes, and in NIfTI files of every shape; what predictions keep of them."""

from __future__ import annotations

import io
import json
import stat
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import draw_case
from drawn_masks import save
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, generate_uid

from fundus_seg.data import listing
from fundus_seg.data.identifiers import KEY_VARIABLE, naming
from fundus_seg.data.io import read_image, read_photograph, write_mask
from fundus_seg.data.names import name_of
from fundus_seg.errors import DataError, UsageError
from fundus_seg.inference.folder import predict_folder

PHOTOGRAPHY, TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.4"
COLOURS = np.kron(np.random.default_rng(0).integers(40, 220, (4, 6, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
KEY = "a key of this test, and of no hospital"


def write_dicom(path, pixels=COLOURS, photometric="RGB", *, syntax=ExplicitVRLittleEndian, encoded=None, **values):
    """Write pixels (H, W) or (H, W, 3) as an ophthalmic photograph; `encoded` is its frame in another syntax."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.Modality = PHOTOGRAPHY, "OP"
    dataset.file_meta.MediaStorageSOPClassUID = PHOTOGRAPHY
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dataset.PatientID, dataset.StudyInstanceUID, dataset.ImageLaterality = "4711", "1.2.3.4", "R"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PixelData = pixels.tobytes() if encoded is None else encapsulate([encoded])
    for name, value in values.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(form, image=COLOURS, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


class TestPixels:
    def test_rgb_in_both_orders_of_planes(self, tmp_path):
        np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm")), COLOURS)
        planes = {"PlanarConfiguration": 1, "PixelData": COLOURS.transpose(2, 0, 1).tobytes()}
        np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "b.dcm", **planes)), COLOURS)

    def test_ycbcr_becomes_rgb(self, tmp_path):
        ycbcr = np.asarray(Image.fromarray(COLOURS).convert("YCbCr"))
        read = read_image(write_dicom(tmp_path / "a.dcm", ycbcr, "YBR_FULL"))
        assert np.abs(read.astype(int) - COLOURS).max() <= 3

    @pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])  # many devices write RGB for a plain JPEG
    def test_jpeg(self, tmp_path, photometric):
        jpeg = compressed("JPEG", quality=95)
        path = write_dicom(tmp_path / "a.dcm", photometric=photometric, syntax=JPEGBaseline8Bit, encoded=jpeg)
        wanted = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
        assert np.abs(read_image(path) - wanted).max() <= 3

    def test_jpeg_2000(self, tmp_path):
        j2k = compressed("JPEG2000", irreversible=False, no_jp2=True)
        path = write_dicom(tmp_path / "a.dcm", photometric="RGB", syntax=JPEG2000Lossless, encoded=j2k)
        np.testing.assert_array_equal(read_image(path), COLOURS)

    def test_greys_of_both_directions(self, tmp_path):
        greys = COLOURS[..., 0].copy()
        np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm", greys, "MONOCHROME2"))[..., 1], greys)
        inverted = read_image(write_dicom(tmp_path / "b.dcm", greys, "MONOCHROME1"))
        np.testing.assert_array_equal(inverted, np.stack([255 - greys] * 3, axis=-1))
        deep = write_dicom(tmp_path / "c.dcm", greys.astype(np.uint16), "MONOCHROME2", BitsStored=8, HighBit=7)
        np.testing.assert_array_equal(read_image(deep)[..., 2], greys)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palette(self, tmp_path, bits):
        table = np.random.default_rng(1).integers(0, 256, (3, 256), np.uint8)
        stored = table if bits == 8 else table.astype("<u2") * 257
        names = ("Red", "Green", "Blue")
        palette = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, bits] for name in names}
        palette |= {
            f"{name}PaletteColorLookupTableData": each.tobytes() for name, each in zip(names, stored, strict=True)
        }
        greys = COLOURS[..., 0].copy()
        path = write_dicom(tmp_path / "a.dcm", greys, "PALETTE COLOR", **palette)
        np.testing.assert_array_equal(read_image(path), table.T[greys])


class TestRefused:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"NumberOfFrames": 2, "PixelData": COLOURS.tobytes() * 2}, "2 frames, not one photograph; export each"),
            (
                {"SOPClassUID": TOMOGRAPHY, "Modality": "OPT"},
                "Ophthalmic Tomography Image Storage, modality OPT, is no",
            ),
            ({"Modality": "OPT"}, "modality OPT, is no photograph of an eye"),
            ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV with 3 samples a pixel"),
            ({"PixelData": b"\0\0"}, "not a whole DICOM file"),
            ({"Rows": 20_000, "Columns": 20_000}, "20000x20000 pixels, more than 100 million"),
        ],
    )
    def test_what_is_no_single_photograph(self, tmp_path, values, message):
        path = write_dicom(tmp_path / "a.dcm", **values)
        with pytest.raises(DataError, match=rf"a\.dcm: .*{message}"):
            read_image(path)

    def test_more_than_eight_bits(self, tmp_path):
        path = write_dicom(
            tmp_path / "a.dcm", np.full((4, 4), 4095, np.uint16), "MONOCHROME2", BitsStored=12, HighBit=11
        )
        with pytest.raises(DataError, match="more than 8 bits a channel"):
            read_image(path)

    def test_a_compression_without_a_decoder(self, tmp_path):
        path = write_dicom(tmp_path / "a.dcm", syntax=JPEGLosslessSV1, encoded=b"\xff\xd8\xff\xd9")
        with pytest.raises(DataError, match=r"compressed as JPEG Lossless.*, for which no decoder is installed"):
            read_image(path)

    def test_a_suffix_alone_makes_no_dicom(self, tmp_path):
        (tmp_path / "a.dcm").write_bytes(b"no DICOM" * 50)
        with pytest.raises(DataError, match=r"a\.dcm: not an image \(PNG, JPEG, BMP, TIFF, NIfTI, DICOM\)"):
            read_image(tmp_path / "a.dcm")

    def test_without_pydicom_one_line_says_what_to_install(self, checkpoint, tmp_path, monkeypatch):
        for number in range(3):
            write_dicom(tmp_path / "in" / f"{number}.dcm")
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(UsageError) as caught:
            predict_folder(checkpoint, [tmp_path / "in"], tmp_path / "out")
        assert str(caught.value) == 'photographs in DICOM files need pydicom: pip install "fundus-seg[dicom]"'


class TestListing:
    def test_files_without_a_suffix_are_known_by_their_first_bytes(self, tmp_path):
        names = ["1.2.840.113.7", "1.2.840.113.8", "IM_0001", "IM_0002.ima", "x.dcm"]
        for name in names:
            write_dicom(tmp_path / name)
        write_dicom(tmp_path / "DICOMDIR")
        (tmp_path / "notes").write_text("nothing")
        write_dicom(tmp_path / "study/1.2.840.113.9")
        found = listing.photographs([tmp_path])
        assert [path.name for path in found.files] == names
        reasons = {"notes": "without a suffix of a photograph", "1.2.840.113.9": listing.NESTED}
        assert {each.path.name: each.reason for each in found.skipped} == reasons
        assert len(listing.photographs([tmp_path], recursive=True).files) == len(names) + 1
        assert [name_of(path) for path in found.files] == ["1.2.840.113.7", "1.2.840.113.8", "IM_0001", "IM_0002", "x"]

    def test_no_file_with_the_suffix_of_a_picture_is_opened(self, tmp_path, monkeypatch):
        save(tmp_path / "a.png", COLOURS)
        monkeypatch.setattr(listing.dicom, "has_mark", lambda path: pytest.fail(f"{path} was opened"))
        assert len(listing.photographs([tmp_path]).files) == 1


class TestPredictions:
    def test_eye_identifiers_and_spacing_stand_in_the_table_and_the_mask(self, checkpoint, tmp_path, monkeypatch):
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        write_dicom(tmp_path / "in/a.dcm", PixelSpacing=[0.005, 0.004])
        write_dicom(tmp_path / "in/b.dcm", ImageLaterality="L", PatientID="4712")
        save(tmp_path / "in/c.png", COLOURS)
        csv = predict_folder(checkpoint, [tmp_path / "in"], tmp_path / "out", form="nifti")
        table = pd.read_csv(csv, dtype=str, keep_default_na=False)
        assert table["eye"].tolist() == ["OD", "OS", "unknown"]
        assert table["eye_from"].tolist() == ["header", "header", ""]
        assert table["pixel_height_mm"].tolist() == ["0.005", "", ""]
        assert table["pixel_width_mm"].tolist() == ["0.004", "", ""]
        hashes = naming(keep=False).name
        assert table["patient"].tolist() == [hashes("4711"), hashes("4712"), ""]
        assert table["study"].tolist() == [hashes("1.2.3.4")] * 2 + [""]
        assert "4711" not in csv.read_text()
        np.testing.assert_allclose(nibabel.load(tmp_path / "out/masks/a.nii.gz").header.get_zooms()[:2], [0.004, 0.005])
        assert nibabel.load(tmp_path / "out/masks/c.nii.gz").header.get_zooms()[:2] == (1, 1)

    def test_identifiers_are_kept_on_demand_and_never_mixed_with_hashes(
        self, checkpoint, tmp_path, command, monkeypatch
    ):
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        write_dicom(tmp_path / "in/a.dcm", IssuerOfPatientID="north", PatientID="=4711")
        command("predict", checkpoint, "in", "--out", "out", "--keep-ids")
        table = pd.read_csv(tmp_path / "out/cases.csv")
        assert table[["patient", "study"]].to_numpy().tolist() == [["north/=4711", "1.2.3.4"]]
        said = command("predict", checkpoint, "in", "--out", "out", code=1).err
        assert "holds other predictions (identifiers kept there, hashed, key " in said

    def test_tables_without_dicom_have_no_such_columns(self, checkpoint, tmp_path):
        save(tmp_path / "c.png", COLOURS)
        csv = predict_folder(checkpoint, [tmp_path / "c.png"], tmp_path / "out")
        assert not {"patient", "study", "disc_mm2"} & set(pd.read_csv(csv))


class TestIdentifiers:
    def test_the_users_own_key_is_made_once_and_is_private(self, tmp_path, monkeypatch):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        first, again = naming(keep=False), naming(keep=False)
        assert first.name("4711") == again.name("4711") != first.name("4712")
        assert first.text == again.text
        path = tmp_path / "fundus-seg/identifiers.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        assert naming(keep=False).name("4711") != first.name("4711")
        assert naming(keep=False).name("") == ""

    def test_a_key_that_can_be_guessed_is_refused(self, monkeypatch):
        monkeypatch.setenv(KEY_VARIABLE, "secret")
        with pytest.raises(UsageError, match="shorter than 16 characters"):
            naming(keep=False)


class TestNifti:
    @pytest.mark.parametrize("shape", [(96, 64, 3), (96, 64, 1, 3), (96, 64, 1, 1, 3), "structured", "flat", "slice"])
    def test_photographs_of_every_shape_give_masks_in_their_place(self, tmp_path, shape):
        columns_first = COLOURS.swapaxes(0, 1)
        if shape == "structured":
            voxels = np.ascontiguousarray(columns_first).view([("R", "u1"), ("G", "u1"), ("B", "u1")])
        elif shape in ("flat", "slice"):
            voxels = columns_first[..., :1] if shape == "slice" else columns_first[..., 0]
        else:
            voxels = columns_first.reshape(shape)
        image = nibabel.Nifti1Image(voxels, np.diag([-0.004, -0.005, 1, 1]))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, tmp_path / "a.nii.gz")
        wanted = np.stack([COLOURS[..., 0]] * 3, axis=-1) if shape in ("flat", "slice") else COLOURS
        np.testing.assert_array_equal(read_photograph(tmp_path / "a.nii.gz").pixels, wanted)
        disc = np.zeros((64, 96), bool)
        disc[10:30, 20:60] = True
        write_mask(tmp_path / "mask.nii.gz", np.stack([disc, disc]), "nifti", like=tmp_path / "a.nii.gz")
        mask = nibabel.load(tmp_path / "mask.nii.gz")
        assert mask.shape == (96, 64, 1)
        np.testing.assert_allclose(mask.header.get_zooms()[:2], [0.004, 0.005])
        assert mask.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(read_image(tmp_path / "mask.nii.gz")[..., 0] == 2, disc)


def test_domains_of_dicom_photographs_are_checked(tmp_path, command):
    lines = ["domains:"]
    for domain in ("a", "b"):
        for number in range(8):
            photograph, mask = draw_case(np.random.default_rng(ord(domain) + 10 * number), 64)
            write_dicom(tmp_path / domain / "in" / f"eye{number}", np.asarray(photograph))
            save(tmp_path / domain / "masks" / f"eye{number}.png", np.asarray(mask))
        lines.append(f'  {domain}: {{images: "{domain}/in/*", masks: "{domain}/masks/{{name}}.png"}}')
    (tmp_path / "domains.yaml").write_text("\n".join(lines))
    printed = command("data", "check", "domains.yaml", "--json", code=1).out
    assert [
        each
        for each in json.loads(printed)["problems"]
        if each["file"].startswith(("a/", "b/")) and "same" not in each["problem"]
    ] == []
