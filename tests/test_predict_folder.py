from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest
from drawn_masks import pairs_of
from PIL import Image
from predictions import Drawn, Told, rows_of

from fundus_seg import load_model
from fundus_seg.data.box import Box
from fundus_seg.data.coding import DOFE
from fundus_seg.data.io import read_image, read_mask
from fundus_seg.errors import DataError
from fundus_seg.inference.case_rows import row_of, texts_of
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.roi import Region
from fundus_seg.phantom import make_phantom


class TestFolders:
    def test_folder_of_photographs(self, checkpoint, photographs, tmp_path):
        csv = predict_folder(
            checkpoint, [photographs / "image"], tmp_path / "out", overlay="png", truth=[str(photographs / "mask")]
        )
        table = pd.read_csv(csv)
        assert table["photograph"].str.endswith("png").sum() == 4
        assert {"height", "width", "disc_pixels", "cup_pixels", "vertical_cdr", "dsc_disc", "dsc_cup"} <= set(table)
        predictor = load_model(checkpoint)
        for name in (f"Atest{number}" for number in range(4)):
            masks = predictor(np.asarray(Image.open(photographs / "image" / f"{name}.png")))
            np.testing.assert_array_equal(
                read_mask(tmp_path / "out/masks" / f"{name}.png"), [masks[0], masks[0] & masks[1]]
            )
            assert Image.open(tmp_path / "out/overlays" / f"{name}.png").width == 540  # enlarged, or no text would fit

    def test_nifti(self, checkpoint, photographs, tmp_path):
        predict_folder(checkpoint, [photographs / "image/Atest0.png"], tmp_path / "out", form="nifti")
        labels = nibabel.load(tmp_path / "out/masks/Atest0.nii.gz").get_fdata()
        assert labels.shape == (90, 90, 1)
        assert set(np.unique(labels)) <= {0, 1, 2}

    def test_names_with_spaces_and_letters_of_any_alphabet(self, checkpoint, photographs, tmp_path):
        odd = tmp_path / "Œil gauche №1.png"
        (photographs / "image/Atest0.png").rename(odd)
        predict_folder(checkpoint, [odd], tmp_path / "out")
        assert (tmp_path / "out/masks" / odd.name).is_file()

    @pytest.mark.parametrize("twin", ["Atest0.jpg", "Atest0.PNG", "twin/Atest0.png"])
    def test_photographs_of_one_name_are_named_and_the_others_done(self, checkpoint, photographs, tmp_path, twin):
        twin = photographs / "image" / twin
        twin.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(twin)
        given = [photographs / "image", *([twin] if twin.parent.name == "twin" else [])]
        with pytest.raises(DataError, match="another photograph is named Atest0 too, ") as caught:
            predict_folder(checkpoint, given, tmp_path / "out")
        assert {problem.path for problem in caught.value.problems} == {twin, photographs / "image/Atest0.png"}
        assert "the other 3 are done" in str(caught.value)
        assert sorted(path.stem for path in (tmp_path / "out/masks").iterdir()) == ["Atest1", "Atest2", "Atest3"]

    def test_photographs_that_all_have_one_name_make_nothing(self, checkpoint, photographs, tmp_path):
        own = photographs / "image/Atest0.png"
        Image.open(own).save(tmp_path / "Atest0.bmp")
        with pytest.raises(DataError, match="another photograph is named Atest0"):
            predict_folder(checkpoint, [own, tmp_path / "Atest0.bmp"], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_true_masks_that_differ_in_case_are_told(self, checkpoint, photographs, tmp_path):
        for path in sorted((photographs / "mask").iterdir()):
            path.rename(path.with_name(path.name.lower()))
        with pytest.raises(DataError, match="'atest0' and 'Atest0' differ in upper and lower case"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_a_mask_is_scored_whichever_way_the_photograph_writes_its_accents(
        self, drawn, checkpoint, photographs, tmp_path, form
    ):
        for path in sorted(photographs.rglob("*.png")):
            path.rename(path.with_stem(unicodedata.normalize(form, f"\u00e9{path.stem}")))
        drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
        masks = sorted(path.stem for path in (tmp_path / "out/masks").iterdir())
        assert masks == [f"\u00e9Atest{number}" for number in range(4)]
        assert list(pairs_of(tmp_path / "out/masks", photographs / "mask").names) == masks

    def test_what_was_given_is_never_written_over(self, checkpoint, photographs):
        before = (photographs / "mask/Atest0.png").read_bytes()
        masks = (photographs / "mask").rename(photographs / "masks")
        with pytest.raises(DataError, match="choose another --out"):
            predict_folder(checkpoint, [photographs / "image"], photographs, truth=[str(masks)])
        assert (masks / "Atest0.png").read_bytes() == before

    def test_truth_without_a_match_is_refused(self, checkpoint, photographs, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(tmp_path / "nowhere")])
        (photographs / "mask/Atest0.png").rename(tmp_path / "other.png")
        with pytest.raises(DataError, match="--truth takes a folder"):
            predict_folder(
                checkpoint,
                [photographs / "image"],
                tmp_path / "out",
                truth=[str(tmp_path / "{name}.png")],
            )

    def test_bad_photographs_are_all_named_and_the_others_done(self, drawn, checkpoint, photographs, tmp_path):
        for number in (1, 2):
            (photographs / f"image/Atest{number}.png").write_bytes(b"")
        drawn(cup=0.25)
        for _ in range(2):  # the second call finds all done, and says it again
            told = Told()
            table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
            reason = "not an image: the file is empty; copy or export it again"
            assert f"left out: 2 photographs, {reason}: " in told.text
            assert "status: 2 ok, 0 to check, 2 declined" in told.text
            rows = rows_of(table)
            assert [row["warning"] == "unreadable" for row in rows] == [False, True, True, False]
            assert {(row["status"], row["reason"], row["height"]) for row in rows[1:3]} == {("declined", reason, "")}
        assert len(list((tmp_path / "out/masks").iterdir())) == 2

    def test_photographs_of_which_none_can_be_read_end_the_command(self, checkpoint, photographs, tmp_path):
        for path in (photographs / "image").iterdir():
            path.write_bytes(b"")
        with pytest.raises(DataError) as caught:
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")
        assert all(f"Atest{number}.png: not an image" in str(caught.value) for number in range(4))
        assert {row["status"] for row in rows_of(tmp_path / "out/cases.csv")} == {"declined"}

    def test_a_true_mask_that_cannot_be_read_is_no_fault_of_the_photograph(self, checkpoint, photographs, tmp_path):
        (photographs / "mask/Atest1.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"mask/Atest1\.png: not an image"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
        assert len(rows_of(tmp_path / "out/cases.csv")) == 3

    def test_missing_photograph_and_empty_folder_are_named(self, checkpoint, tmp_path):
        with pytest.raises(DataError, match="no such photograph"):
            predict_folder(checkpoint, [tmp_path / "x.png"], tmp_path / "out")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no photograph in it"):
            predict_folder(checkpoint, [tmp_path / "empty"], tmp_path / "out")


class TestTable:
    """The rows say what the masks show, and parse back."""

    def test_rows_count_the_pixels_of_the_mask_file(self, drawn, checkpoint, photographs, tmp_path):
        """The case c22: a cup larger than the disc."""
        drawn(disc=0.4, cup=0.6)
        told = Told()
        table = predict_folder(
            checkpoint,
            [photographs / "image"],
            tmp_path / "out",
            truth=[str(photographs / "mask")],
            overlay="jpeg",
            progress=told,
        )
        for row in rows_of(table):
            name = Path(row["photograph"]).stem
            disc, cup = read_mask(tmp_path / f"out/masks/{name}.png")
            assert (int(row["disc_pixels"]), int(row["cup_pixels"])) == (disc.sum(), cup.sum())
            assert float(row["vertical_cdr"]) == 1
            raw = Drawn(disc=0.4, cup=0.6)(read_image(photographs / f"image/{name}.png"))
            assert int(row["cup_pixels_outside_disc"]) == (raw[1] & ~raw[0]).sum() > 0
            assert row["warning"] == "cup_outside_disc;unusual_vcdr"
            assert (row["status"], row["reason"].split(";")[0]) == ("check", "the cup leaves the disc")
            true = read_mask(photographs / f"mask/{name}.png")
            assert float(row["dsc_cup"]) == pytest.approx(2 * (cup & true[1]).sum() / (cup.sum() + true[1].sum()))
        assert "warning: 4 of 4 photographs: the cup leaves the disc" in told.text

    @pytest.mark.parametrize(
        ("size", "warns"), [(0.11, True), (0.23, True), (0.25, False), (0.5, False), (0.98, False)]
    )
    def test_a_disc_framed_otherwise_than_in_training_is_told(
        self, drawn, checkpoint, photographs, tmp_path, size, warns
    ):
        drawn(disc=size, cup=size / 2)
        told = Told()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert [row["warning"] for row in rows_of(table)] == 4 * ["framing" * warns]
        assert float(rows_of(table)[0]["framing"]) == pytest.approx(size, abs=0.01)
        line = "photographs: disc is 11 % of the frame, the model was trained on 30-80 %: not framed as in training"
        assert (f"warning: 4 of 4 {line}" in told.text) == (size == 0.11)

    def test_a_model_that_does_not_know_its_framing_says_so(self, drawn, checkpoint, photographs, tmp_path):
        model, told = drawn(disc=0.1, cup=0.05), Told()
        model.framing = None
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert "framing is not checked" in told.text
        assert {row["warning"] for row in rows_of(table)} == {""}

    def test_no_disc_is_told(self, drawn, checkpoint, photographs, tmp_path):
        drawn(disc=0, cup=0)
        told = Told()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", overlay="png", progress=told)
        assert {(row["warning"], row["vertical_cdr"]) for row in rows_of(table)} == {("no_disc", "")}
        assert "warning: 4 of 4 photographs: no disc found" in told.text

    @pytest.mark.parametrize(
        ("kind", "found"),
        [
            *((kind, True) for kind in ("black", "white", "grey", "red", "one pixel", "8 x 8", "noise", "a date")),
            *((kind, False) for kind in ("eye", "eye in poor light", "grey eye", "ramp")),
        ],
    )
    def test_a_picture_of_one_colour_is_told(self, drawn, checkpoint, photographs, tmp_path, kind, found):
        colours = {"black": 0, "white": 255, "grey": 127, "red": (200, 30, 10), "one pixel": 90, "8 x 8": 60}
        sizes = {"one pixel": 1, "8 x 8": 8}
        eye = read_image(photographs / "image/Atest0.png")
        picture = np.full((*2 * (sizes.get(kind, 300),), 3), colours.get(kind, 0), np.uint8)
        if kind == "noise":
            picture += np.random.default_rng(0).normal(4, 1.5, picture.shape).clip(0, 9).astype(np.uint8)
        elif kind == "a date":
            cv2.putText(picture, "2026-11-26", (5, 295), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
        elif kind == "ramp":
            picture += np.linspace(0, 255, 300).astype(np.uint8)[:, None, None]
        elif "eye" in kind:
            picture = {"eye": eye, "eye in poor light": eye // 8, "grey eye": eye[..., :1].repeat(3, axis=2)}[kind]
        Image.fromarray(picture).save(tmp_path / "picture.png")
        drawn()
        told = Told()
        table = predict_folder(checkpoint, [tmp_path / "picture.png"], tmp_path / "out", overlay="png", progress=told)
        assert ("one_colour" in rows_of(table)[0]["warning"].split(";")) == found
        assert ("warning: 1 of 1 photographs: of one colour, with no eye to be seen" in told.text) == found

    def test_an_overlay_says_what_there_is(self, photographs):
        image, true = read_image(photographs / "image/Atest0.png"), read_mask(photographs / "mask/Atest0.png")

        def texts(disc, cup, true=None, image=image):
            masks = Drawn(disc, cup)(image)
            region = Region("full", Box.whole(image.shape))
            told = {"region": region, "framing": None, "phantom": False, "inputs": None}
            return texts_of(row_of(Path("a"), image, masks, true, **told))

        assert texts(0.5, 0.25) == ["vCDR 0.50"]
        assert texts(0.5, 0) == ["no cup found"]
        assert texts(0, 0, true) == ["no disc found", "Dice disc 0.0", "Dice cup 0.0"]
        assert texts(0.5, 0, image=0 * image) == ["no cup found", "a picture of one colour"]

    def test_a_model_of_the_phantom_is_told_of_other_photographs(self, drawn, checkpoint, photographs, tmp_path):
        make_phantom(tmp_path / "phantom", per_domain=3)
        model, told = drawn(), Told()
        model.phantom = True
        own = sorted((tmp_path / "phantom/Domain1").rglob("image/*.png"))
        table = predict_folder(checkpoint, [photographs / "image", *own], tmp_path / "out", progress=told)
        warnings = [row["warning"] for row in rows_of(table)]
        assert warnings == 4 * ["phantom_model"] + len(own) * [""]
        assert f"warning: 4 of {4 + len(own)} photographs: not the phantom's" in told.text

    def test_the_bar_ends_where_it_should_with_bad_photographs_too(self, drawn, checkpoint, photographs, tmp_path):
        (photographs / "image/Atest1.png").write_bytes(b"")
        drawn()
        told = Told()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", progress=told)
        assert told.steps == told.total == 4

    @pytest.mark.parametrize(
        "name",
        [
            *(b"=cmd()|x", b"+1", b"@sum", b"-dash", b"new\nline", b"re\rturn", b"both\r\n", b'quo"te,d', b"tab\there"),
            *(
                b"NA",
                b"007",
                b"esc\x1b[31mred",
                b"not-\xe9-utf8",
                b"a.b",
                b" lead",
                b"x.jpg",
                b"eye :100: a",
                b"a" * 251,
            ),
            *("e\u0301cole".encode(), "\u773c".encode()),
        ],
    )
    def test_any_name_parses_back_and_is_found_again(self, drawn, checkpoint, photographs, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        photograph = Path(os.fsdecode(name + b".png"))
        shutil.copy(photographs / "image/Atest0.png", photograph)
        shutil.copy(photographs / "image/Atest1.png", "after.png")
        for calls in (2, 0):
            model = drawn()
            table = predict_folder(checkpoint, [photograph, Path("after.png")], Path("out"), overlay="jpeg")
            assert model.calls == calls
        formula = name[:1] in b"=+-@"
        shown = formula * "./" + str(photograph).replace("\udce9", "\\xe9")
        assert [row["photograph"] for row in rows_of(table)] == [shown, "after.png"]
        assert pd.read_csv(table)["photograph"].tolist() == [shown, "after.png"]
        assert pd.read_csv(table)["height"].tolist() == [90, 90]
        assert len(list(Path("out/masks").iterdir())) == len(list(Path("out/overlays").iterdir())) == 2


class TestTruth:
    """True masks of any coding are recognised, as `score` does it."""

    @pytest.mark.parametrize("greys", [(0, 1, 2), (255, 128, 0), (0, 128, 255), (0, 255, 128)])
    def test_codings(self, drawn, checkpoint, photographs, tmp_path, greys):
        for path in (photographs / "mask").iterdir():
            disc, cup = Drawn()(read_image(photographs / f"image/{path.name}"))
            labels = np.array(greys, np.uint8)[disc.astype(int) + cup]
            Image.fromarray(labels).save(path)
        drawn()
        table = predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])
        assert {(row["dsc_disc"], row["dsc_cup"]) for row in rows_of(table)} == {("1.0", "1.0")}

    def test_an_open_coding_is_asked_for(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            Image.new("L", (90, 90)).save(path)  # empty labels, or a cup of dofe that fills the frame
        drawn()
        with pytest.raises(DataError, match="--truth-coding"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")])

    def test_a_given_coding_that_the_truth_contradicts_is_refused(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            greys = np.asarray(Image.open(path))
            Image.fromarray(np.select([greys == 255, greys == 0], [0, 255], 128).astype(np.uint8)).save(path)
        drawn()
        truth = [str(photographs / "mask")]
        with pytest.raises(DataError, match=r"4 of 4 masks of the truth show cup 255, rim 128, background 0"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth, truth_coding=DOFE)
        assert not (tmp_path / "out").exists()

    def test_true_discs_and_cups_that_are_exchanged_are_refused(self, drawn, checkpoint, photographs, tmp_path):
        for path in (photographs / "mask").iterdir():
            greys = np.asarray(Image.open(path))
            for structure, mask in (("disc", greys < 255), ("cup", greys == 0)):
                (tmp_path / structure).mkdir(exist_ok=True)
                Image.fromarray(np.uint8(255) * mask).save(tmp_path / structure / path.name)
        drawn()
        discs, cups = str(tmp_path / "disc"), str(tmp_path / "cup")
        with pytest.raises(DataError, match="4 of 4 masks of the truth show a disc inside its cup"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[cups, discs])
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=[discs, cups])

    def test_stray_truth_is_told_and_stands_in_its_row(self, drawn, checkpoint, photographs, tmp_path):
        labels = np.asarray(Image.open(photographs / "mask/Atest2.png")).copy()
        labels[:3, :3] = 0
        Image.fromarray(labels).save(photographs / "mask/Atest2.png")
        drawn()
        for _ in range(2):  # the second call finds all done, and says it again
            told = Told()
            table = predict_folder(
                checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")], progress=told
            )
            strays = ["stray_truth" in row["warning"].split(";") for row in rows_of(table)]
            assert strays == [False, False, True, False]
            assert "warning: 1 of 4 photographs: the true mask has stray parts" in told.text

    def test_photographs_without_truth_are_told(self, drawn, checkpoint, photographs, tmp_path):
        (photographs / "mask/Atest2.png").unlink()
        drawn()
        told = Told()
        table = predict_folder(
            checkpoint, [photographs / "image"], tmp_path / "out", truth=[str(photographs / "mask")], progress=told
        )
        assert [row["dsc_disc"] == "" for row in rows_of(table)] == [False, False, True, False]
        assert "1 photograph, not scored, without a true mask: Atest2" in told.text
