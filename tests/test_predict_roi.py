from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image
from predictions import Told, rows_of

from fundus_seg.data.box import Box
from fundus_seg.data.crop import as_row, crop_at
from fundus_seg.data.io import read_mask
from fundus_seg.errors import RunError
from fundus_seg.inference import folder
from fundus_seg.inference.localise import FoundDisc
from fundus_seg.inference.roi import AUTO, NO_EYE, TWO_DISCS, Roi

predict_folder = partial(folder.predict_folder, roi=AUTO)
DISC = FoundDisc(x=300, y=120, diameter=50, probability=1)


@pytest.fixture
def frames(tmp_path):
    """A folder of three whole photographs."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (240, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"eye{number}.png")
    return folder


@pytest.fixture
def found(monkeypatch):
    """What the localiser finds in each photograph, by its first pixel; anything else is `DISC`."""
    answers = {}
    monkeypatch.setattr(
        "fundus_seg.inference.localise.localiser", lambda: lambda image: answers.get(tuple(image[0, 0]), DISC)
    )
    return answers


def first_pixel(path):
    return tuple(np.asarray(Image.open(path))[0, 0])


class TestWholePhotographs:
    def test_masks_lie_in_the_photograph_where_the_crop_lay(self, drawn, found, checkpoint, frames, tmp_path):
        model = drawn(disc=0.5, cup=0.2)
        table = predict_folder(checkpoint, [frames], tmp_path / "out", probabilities=True)
        side = round(DISC.diameter / model.framing.middle)
        crop = Box.around(DISC.x, DISC.y, side)
        disc, cup = read_mask(tmp_path / "out/masks/eye0.png")
        assert disc.shape == (240, 400)
        np.testing.assert_array_equal(np.stack([disc, cup]), crop.paste(model(np.zeros((side, side, 3))), (240, 400)))
        likely = np.asarray(Image.open(tmp_path / "out/probabilities/disc/eye0.png"))
        np.testing.assert_array_equal(likely > 0, disc)
        row = rows_of(table)[0]
        assert (row["roi"], row["warning"]) == ("auto", "")
        assert [int(row[f"crop_{name}"]) for name in ("x", "y", "width", "height")] == [crop.x, crop.y, side, side]
        assert float(row["framing"]) == pytest.approx(0.5, rel=0.05)
        assert float(row["disc_x"]) == pytest.approx(300, abs=1)
        assert float(row["disc_height"]) == pytest.approx(0.5 * side, abs=2)

    def test_a_crop_beyond_the_edge_is_done_and_read_again(self, drawn, found, checkpoint, frames, tmp_path):
        drawn(disc=0.5, cup=0.2)
        found[first_pixel(frames / "eye1.png")] = FoundDisc(x=8, y=230, diameter=50, probability=1)
        table = predict_folder(checkpoint, [frames], tmp_path / "out")
        assert int(rows_of(table)[1]["crop_x"]) < 0
        before = table.read_bytes()
        told = Told()
        predict_folder(checkpoint, [frames], tmp_path / "out", progress=told)
        assert table.read_bytes() == before
        assert "3 of 3 photographs are done already" in told.text

    @pytest.mark.parametrize(
        ("reason", "text"), [(NO_EYE, "no disc found in the photograph"), (TWO_DISCS, "two discs found")]
    )
    def test_what_is_not_found_is_said_and_has_no_mask(self, drawn, found, checkpoint, frames, tmp_path, reason, text):
        drawn(disc=0.5 if reason == TWO_DISCS else 0, cup=0)
        found[first_pixel(frames / "eye1.png")] = reason
        told = Told()
        table = predict_folder(checkpoint, [frames], tmp_path / "out", overlay="png", progress=told)
        row = rows_of(table)[1]
        assert (row["roi"], row["warning"]) == ("none", reason)
        assert not any(row[name] for name in ("crop_x", "disc_pixels", "disc_x", "vertical_cdr", "framing"))
        assert sorted(path.stem for path in (tmp_path / "out/masks").iterdir()) == ["eye0", "eye2"]
        assert sorted(path.stem for path in (tmp_path / "out/overlays").iterdir()) == ["eye0", "eye2"]
        assert f"warning: 1 of 3 photographs: {text}" in told.text
        model = drawn()
        predict_folder(checkpoint, [frames], tmp_path / "out", overlay="png")
        assert model.calls == 0  # done already, without a mask

    def test_a_crop_that_only_the_network_knows_keeps_its_mask_and_is_named(
        self, drawn, found, checkpoint, frames, tmp_path
    ):
        drawn(disc=0.5, cup=0.2)
        found[first_pixel(frames / "eye1.png")] = NO_EYE
        told = Told()
        row = rows_of(predict_folder(checkpoint, [frames], tmp_path / "out", progress=told))[1]
        assert (row["roi"], row["warning"]) == ("full", "disc_unconfirmed")
        assert (tmp_path / "out/masks/eye1.png").is_file()
        assert "warning: 1 of 3 photographs: no disc found at first" in told.text

    def test_photographs_framed_as_in_training_are_seen_whole(self, drawn, found, checkpoint, frames, tmp_path):
        drawn(disc=0.5, cup=0.2)
        for path in frames.iterdir():
            found[first_pixel(path)] = FoundDisc(200, 120, 150, 1)
        auto = predict_folder(checkpoint, [frames], tmp_path / "auto")
        full = predict_folder(checkpoint, [frames], tmp_path / "full", roi=Roi.parse("full"))
        assert auto.read_bytes() == full.read_bytes()
        for name in ("eye0.png", "eye2.png"):
            assert (tmp_path / "auto/masks" / name).read_bytes() == (tmp_path / "full/masks" / name).read_bytes()

    def test_a_model_that_does_not_know_its_framing_sees_them_whole(self, checkpoint, found, frames, tmp_path):
        told = Told()
        table = predict_folder(checkpoint, [frames / "eye0.png"], tmp_path / "out", progress=told)
        assert rows_of(table)[0]["roi"] == "full"
        assert "--roi auto takes photographs whole" in told.text


class TestGiven:
    def test_a_table_of_boxes_names_what_it_lacks(self, drawn, checkpoint, frames, tmp_path):
        drawn(disc=0.5, cup=0.2)
        (tmp_path / "boxes.csv").write_text("name,x,y,w,h\neye0,10,20,100,90\neye2,900,0,50,50\n")
        roi = Roi.parse(str(tmp_path / "boxes.csv"))
        rows = rows_of(predict_folder(checkpoint, [frames], tmp_path / "out", roi=roi))
        assert [(row["roi"], row["warning"]) for row in rows] == [
            ("given", ""),
            ("none", "not_in_roi_table"),
            ("none", "roi_outside"),
        ]
        assert (rows[0]["crop_x"], rows[0]["crop_height"]) == ("10", "90")

    def test_the_boxes_of_an_earlier_call_make_the_same_masks(self, drawn, found, checkpoint, frames, tmp_path):
        drawn(disc=0.5, cup=0.2)
        table = predict_folder(checkpoint, [frames], tmp_path / "out")
        predict_folder(checkpoint, [frames], tmp_path / "again", roi=Roi.parse(str(table)))
        for name in ("eye0.png", "eye2.png"):
            assert (tmp_path / "again/masks" / name).read_bytes() == (tmp_path / "out/masks" / name).read_bytes()

    def test_another_region_needs_another_folder(self, drawn, found, checkpoint, frames, tmp_path):
        drawn(disc=0.5, cup=0.2)
        predict_folder(checkpoint, [frames], tmp_path / "out")
        with pytest.raises(RunError, match=r"roi auto, localiser [0-9a-f]{8} there, full now"):
            predict_folder(checkpoint, [frames], tmp_path / "out", roi=Roi.parse("full"))


class TestManifest:
    """Crops that `data prepare` has cut, and the photographs that they come from."""

    @pytest.fixture(params=[None, (200, 160)])
    def cut(self, request):
        """A crop beyond the photograph's edge, in its own pixels or resampled."""
        return crop_at((400, 240), (20, 120), (100, 80), output=request.param)

    @pytest.fixture
    def manifest(self, cut, tmp_path):
        row = {"name": "V1", "source": "REFUGE.zip/images/eye0.png", **as_row(cut)}
        lacking = dict.fromkeys(row, "") | {"name": "V2", "source": "REFUGE.zip/images/eye1.png"}
        path = tmp_path / "manifest.csv"
        path.write_text("\n".join(",".join(map(str, each)) for each in (row, row.values(), lacking.values())))
        return path

    @pytest.fixture
    def crop(self, cut, frames, tmp_path):
        path = tmp_path / "crops/V1.png"
        path.parent.mkdir()
        Image.fromarray(cut.cut(np.asarray(Image.open(frames / "eye0.png")), 0, smooth=True)).save(path)
        return path

    def test_masks_of_crops_go_back_into_the_whole_photograph(
        self, drawn, checkpoint, cut, manifest, crop, frames, tmp_path
    ):
        drawn(disc=0.5, cup=0.2)
        roi = Roi.parse(str(manifest))
        of_crop = rows_of(predict_folder(checkpoint, [crop], tmp_path / "a", roi=roi, overlay="png"))[0]
        given = [frames / "eye0.png", frames / "eye1.png"]
        whole, lacking = rows_of(predict_folder(checkpoint, given, tmp_path / "b", roi=roi))
        masks = read_mask(tmp_path / "a/masks/V1.png")
        assert masks[0].shape == (240, 400)
        assert masks[0].any()
        apart = masks != read_mask(tmp_path / "b/masks/eye0.png")
        assert apart.mean() <= (0 if cut == cut.native else 0.001)
        assert (of_crop["roi"], whole["roi"], lacking["warning"]) == ("crop", "given", "not_in_roi_table")
        place = [each[name] for each in (of_crop, whole) for name in ("height", "width", "crop_x", "crop_width")]
        assert place == 2 * ["240", "400", "-30", "100"]
        assert float(of_crop["disc_x"]) == pytest.approx(
            45 / 2, abs=1
        )  # the part of the disc that is left of 0 is lost

    def test_their_truth_is_scored_there(self, drawn, checkpoint, cut, manifest, crop, tmp_path):
        model = drawn(disc=0.5, cup=0.2)
        (tmp_path / "truth").mkdir()
        disc, cup = model(np.zeros((*cut.size[::-1], 3)))
        Image.fromarray(np.where(cup, 0, np.where(disc, 128, 255)).astype(np.uint8)).save(tmp_path / "truth/V1.png")
        truth, roi = [str(tmp_path / "truth")], Roi.parse(str(manifest))
        row = rows_of(predict_folder(checkpoint, [crop], tmp_path / "out", roi=roi, truth=truth, overlay="png"))[0]
        assert float(row["dsc_disc"]) > 0.97

    def test_a_picture_of_another_size_is_named(self, drawn, checkpoint, manifest, tmp_path):
        drawn(disc=0.5, cup=0.2)
        Image.new("RGB", (90, 90), "red").save(tmp_path / "V1.png")
        roi = Roi.parse(str(manifest))
        row = rows_of(predict_folder(checkpoint, [tmp_path / "V1.png"], tmp_path / "out", roi=roi))[0]
        assert (row["roi"], row["warning"]) == ("none", "not_of_roi_size;one_colour")
