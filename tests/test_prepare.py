"""`data prepare`: what lacks or does not fit, the rules, what is written, and the command."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import raw_trees
from PIL import Image
from preparing import FIRST, MANY, digests, prepared, rows_of, some
from raw_trees import HEIGHT, WIDTH, encoded, greys, laid, photograph, zipped

from fundus_seg.data import open_root
from fundus_seg.data.crop import whole_frame
from fundus_seg.data.io import read_mask
from fundus_seg.datasets import SETS, data_set
from fundus_seg.errors import DataError, UsageError


class TestProblems:
    """Everything that is wrong is listed, with the expected path or number, and nothing is written."""

    TREE = raw_trees.drishti()
    MAP = "Drishti-GS1_files/Training/GT/drishtiGS_002/SoftMap/drishtiGS_002_cupsegSoftmap.png"

    def refused(self, tree, tmp_path):
        with pytest.raises(DataError) as error:
            prepared("drishti-gs", [laid(tree, tmp_path / "raw")], tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]
        return str(error.value).splitlines()

    def test_a_missing_photograph(self, tmp_path):
        tree = {path: content for path, content in self.TREE.items() if path != FIRST}
        lines = self.refused(tree, tmp_path)
        assert "2 problems with the files of drishti-gs" in lines[0]
        assert lines[1].startswith("  drishti-gs/train: 49 photographs, expected 50")
        assert "drishti-gs/drishtiGS_002: no photograph; expected Training/Images/drishtiGS_002.png" in lines[2]

    def test_a_missing_map(self, tmp_path):
        (line,) = self.refused({path: x for path, x in self.TREE.items() if path != self.MAP}, tmp_path)
        assert line == "drishti-gs/drishtiGS_002: no cup map; expected SoftMap/drishtiGS_002_cupsegSoftmap.png"

    def test_a_photograph_twice_and_one_of_no_case(self, tmp_path):
        twice = FIRST.replace("Images/", "Images/again/")
        tree = {**self.TREE, twice: photograph(shift=1), FIRST.replace("_002", "_999"): photograph()}
        lines = self.refused(tree, tmp_path)
        assert "drishti-gs/drishtiGS_002: 2 different photographs (" in lines[1] and "leave one" in lines[1]
        assert lines[2].endswith("Images/drishtiGS_999.png: a photograph of no case of drishti-gs")

    @pytest.mark.parametrize(
        ("path", "content", "told"),
        [
            (FIRST, b"", "not an image"),
            (FIRST, photograph()[:200], "damaged"),
            (MAP, encoded(greys(0, 100, 255), "PNG"), "greys [100] in a soft map"),
            (MAP, encoded(greys(0, 0, 255, width=20), "PNG"), "the masks of disc and cup have different sizes"),
        ],
        ids=["empty", "cut", "grey", "size"],
    )
    def test_a_file_that_cannot_be_used(self, path, content, told, tmp_path):
        (line,) = self.refused({**self.TREE, path: content}, tmp_path)
        assert told in line and str(tmp_path / "raw") in line

    def test_a_file_that_is_damaged_in_its_archive(self, tmp_path):
        path = zipped({**self.TREE, FIRST: b"first"}, tmp_path / "raw.zip")
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo(FIRST).header_offset + 30 + len(FIRST)
        content = path.read_bytes()
        path.write_bytes(content[:start] + b"\xff" + content[start + 1 :])
        with pytest.raises(DataError, match=r"^[^\n]*raw.zip/.*drishtiGS_002.png: cannot be unpacked \([^\n]*$"):
            prepared("drishti-gs", [path], tmp_path / "out")
        made = prepared("drishti-gs", [path], tmp_path / "out", allow_missing=True)
        assert sum(made.cases.values()) == 100

    def test_a_disc_that_is_empty(self, tmp_path):
        empty = encoded(greys(0, 0, 0), "PNG")
        tree = {path: empty if "_002_" in path and path.endswith("map.png") else x for path, x in self.TREE.items()}
        (line,) = self.refused(tree, tmp_path)
        assert "drishtiGS_002_ODsegSoftmap.png: a mask without a disc" in line

    def test_many_are_counted(self, tmp_path):
        lines = self.refused({path: x for path, x in self.TREE.items() if not path.endswith(MANY)}, tmp_path)
        assert len(lines) == 22 and lines[0].startswith("21 problems") and lines[-1] == "  and 1 more"

    def test_what_lacks_stands_in_the_manifest(self, tmp_path):
        tree = {path: content for path, content in self.TREE.items() if path != self.MAP} | {
            FIRST[:-7] + "004.png": b"x"
        }
        raw = [zipped(tree, tmp_path / "raw.zip")]
        made = prepared("drishti-gs", raw, tmp_path / "out", allow_missing=True)
        rows = rows_of(tmp_path / "out")
        assert len(rows) == 101 and sum(made.cases.values()) == 99
        assert rows["drishtiGS_002"]["lacks"] == "no cup map" and not rows["drishtiGS_002"]["source"]
        assert rows["drishtiGS_004"]["lacks"].startswith("not an image")
        sheet = (tmp_path / "out/datasheet.md").read_text()
        assert "raw.zip/Drishti-GS1_files/Training/Images/drishtiGS_004.png" in sheet
        assert (
            "prepare drishti-gs raw.zip OUT --split dofe --reader experts --agreement 3 --crop 32x32 --allow-miss"
            in sheet
        )
        assert not any("drishtiGS_002" in path for path in digests(tmp_path / "out"))

    def test_another_set(self, tmp_path):
        raw = zipped(some(raw_trees.refuge_val(), "V000"), tmp_path / "raw.zip")
        with pytest.raises(DataError, match=r"no whole case of drishti-gs in it .*must hold Drishti-GS1_files"):
            prepared("drishti-gs", [raw], tmp_path / "out")


class TestRules:
    def test_wrong_ones_are_usage_errors(self):
        for name, rules, told in (
            ("drishti-gs", {"agreement": 5}, "give 1 to 4"),
            ("drishti-gs", {"reader": "expert1"}, "unknown reader 'expert1'"),
            ("rim-one-r3", {"reader": "majorty"}, "did you mean 'majority'"),
            ("rim-one-r3", {"agreement": 2}, "has no soft maps"),
            ("refuge-test", {"split": "dofe"}, r"unknown split 'dofe'.*\(valid: hash\)"),
            ("refuge-val", {"crop": "8oo"}, "--crop 8oo: give a side in pixels"),
            ("refuge-val", {"crop": "0"}, "--crop 0"),
            ("refuge-val", {"crop": "800", "scale_to_disc": 2.0}, "leave out --crop"),
            ("refuge-val", {"scale_to_disc": 0.5}, "give 1 to 100 times"),
            ("refuge-val", {"scale_to_disc": float("nan")}, "give 1 to 100 times"),
            ("dofe", {"crop": "none"}, "cropped already"),
        ):
            with pytest.raises(UsageError, match=told):
                data_set(name).rules(**rules)
        with pytest.raises(UsageError, match="unknown data set 'drishti': did you mean 'drishti-gs'"):
            data_set("drishti")

    @pytest.mark.parametrize(
        ("rules", "size"),
        [({"crop": "none"}, (48, 40)), ({"crop": "20x60"}, (20, 60)), ({"scale_to_disc": 2}, (800, 800))],
    )
    def test_a_mask_goes_back_into_the_whole_photograph(self, rules, size, tmp_path):
        raw = [zipped(some(raw_trees.refuge_val(), "V0001"), tmp_path / "raw.zip")]
        prepared("refuge-val", raw, tmp_path / "out", allow_missing=True, **rules)
        row = rows_of(tmp_path / "out")["V0001"]
        folder = tmp_path / "out/refuge-val/train/ROIs"
        mask = read_mask(folder / "mask/V0001.png")
        assert Image.open(folder / "image/V0001.png").size == mask.shape[:0:-1] == size
        assert (whole_frame(mask, row) == np.stack(raw_trees.drawn())).all()
        assert row["roi"] == ("whole" if rules == {"crop": "none"} else "truth")

    def test_padding(self, tmp_path):
        raw = [zipped(some(raw_trees.refuge_val(), "V0001"), tmp_path / "raw.zip")]
        prepared("refuge-val", raw, tmp_path / "out", allow_missing=True, crop="60x20")
        folder = tmp_path / "out/refuge-val/train/ROIs"
        image, mask = (np.asarray(Image.open(folder / kind / "V0001.png")) for kind in ("image", "mask"))
        assert not image[:, [*range(6), *range(54, 60)]].any() and (mask[:, :6] == 255).all()

    def test_a_cup_that_leaves_its_disc_is_clipped_and_counted(self, tmp_path):
        tree = some(raw_trees.rim_one_r3(), "N-1-L")
        wide = np.zeros((24, 2144), np.uint8)
        wide[10:14, 490:510] = 255
        path = "RIM-ONE r3/Healthy/Average_masks/N-1-L-Cup-Avg.png"
        raw = [zipped({**tree, path: encoded(wide, "PNG")}, tmp_path / "raw.zip")]
        prepared("rim-one-r3", raw, tmp_path / "out", allow_missing=True)
        assert rows_of(tmp_path / "out")["N-1-L"]["cup_clipped"] == str(4 * 4)
        assert "1 case of 159 with a cup that leaves its disc" in (tmp_path / "out/datasheet.md").read_text()
        mask = read_mask(tmp_path / "out/rim-one-r3/test/ROIs/mask/N-1-L.png")
        assert mask[1].sum() == 4 * 16

    def test_a_mask_of_another_size_is_resampled_or_refused(self, tmp_path):
        tree = some(raw_trees.refuge_val(), "V0001", "V0002")
        masks = "REFUGE-Validation400-GT/Disc_Cup_Masks"
        double = greys(255, 128, 0).repeat(2, axis=0).repeat(2, axis=1)
        tree |= {f"{masks}/V0001.bmp": encoded(double, "BMP"), f"{masks}/V0002.bmp": encoded(double[:, :60], "BMP")}
        prepared("refuge-val", [zipped(tree, tmp_path / "raw.zip")], tmp_path / "out", allow_missing=True)
        rows = rows_of(tmp_path / "out")
        assert rows["V0002"]["lacks"].startswith(f"60x80 pixels, its photograph has {WIDTH}x{HEIGHT}")
        mask = read_mask(tmp_path / "out/refuge-val/train/ROIs/mask/V0001.png")
        assert (mask == np.stack(raw_trees.drawn())[:, 4:36, 8:40]).all()


class TestOut:
    TREE = some(raw_trees.refuge_val(), "V0001", "V0002")

    def prepare(self, tmp_path, out="out", **options):
        raw = zipped(self.TREE, tmp_path / "raw.zip")
        return prepared("refuge-val", [raw], tmp_path / out, allow_missing=True, **options)

    def test_the_same_command_gives_the_same_bytes(self, tmp_path):
        self.prepare(tmp_path)
        self.prepare(tmp_path, "again")
        first = digests(tmp_path / "out")
        assert first == digests(tmp_path / "again")
        assert self.prepare(tmp_path).unchanged and digests(tmp_path / "out") == first
        texts = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".csv", ".md", ".yaml")]
        assert str(tmp_path) not in "".join(texts)

    def test_other_cases_of_a_set_need_force(self, tmp_path):
        self.prepare(tmp_path)
        first = digests(tmp_path / "out")
        with pytest.raises(DataError, match="refuge-val: other cases of this set lie there; give --force"):
            self.prepare(tmp_path, crop="20")
        assert digests(tmp_path / "out") == first
        assert not self.prepare(tmp_path, crop="20", force=True).unchanged
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "datasheet.md", "domains.yaml", "manifest.csv", "refuge-val",
        ]  # fmt: skip

    def test_sets_share_a_folder_in_any_order(self, tmp_path):
        other = zipped(some(raw_trees.refuge_train(), "g0001", "g0003"), tmp_path / "train.zip")
        for out, order in (("one", (0, 1)), ("two", (1, 0))):
            for first in order:
                if first:
                    self.prepare(tmp_path, out)
                else:
                    prepared("refuge-train", [other], tmp_path / out, allow_missing=True)
        assert digests(tmp_path / "one") == digests(tmp_path / "two")
        root = open_root(tmp_path / "one")
        assert root.domains == ("refuge-train", "refuge-val")
        assert {row["set"] for row in rows_of(tmp_path / "one").values()} == set(root.domains)

    @pytest.mark.parametrize("theirs", ["domains.yaml", "manifest.csv", "refuge-val/a.txt"])
    def test_what_others_wrote_is_not_replaced(self, theirs, tmp_path):
        laid({theirs: b"mine"}, tmp_path / "out")
        with pytest.raises(DataError, match="not written by `data prepare`"):
            self.prepare(tmp_path, force=True)
        assert digests(tmp_path / "out").keys() == {theirs}

    def test_a_download_beside_what_is_prepared(self, tmp_path):
        """OUT may be the folder that holds the download, and is not read as a part of it the second time."""
        laid(self.TREE, tmp_path / "out" / "raw")
        for _ in range(2):
            made = prepared("refuge-val", [tmp_path / "out"], tmp_path / "out", allow_missing=True)
        assert made.unchanged and sum(made.cases.values()) == 2


class TestCommand:
    def test_list(self, command):
        printed = command("data", "prepare", "--list")
        for dataset in SETS.values():
            assert dataset.name in printed.out and dataset.licence.split()[0] in printed.out

    def test_a_set_and_its_rules(self, command, tmp_path):
        raw = zipped(some(raw_trees.refuge_val(), "V0001", "V0002"), tmp_path / "raw.zip")
        printed = command("data", "prepare", "refuge-val", raw, tmp_path / "out", "--allow-missing", "--crop", "32")
        assert printed.out.strip() == str(tmp_path / "out" / "domains.yaml")
        assert "refuge-val: 2 cases (train 1, test 1)" in printed.err
        assert "split: dofe; reader: consensus; crop: 32x32" in printed.err
        assert "left out: 398 cases" in printed.err

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            (["refug-val", "x", "y"], 2, "unknown data set 'refug-val': did you mean 'refuge-val'"),
            (["refuge-val", "x"], 2, "give what you downloaded of refuge-val, then the folder to write into"),
            ([], 2, "give NAME RAW... OUT, or --list"),
            (["refuge-val", "none", "out", "--split", "official"], 2, "unknown split 'official'"),
            (["refuge-val", "none", "out"], 1, "none: no such folder or archive"),
        ],
    )
    def test_errors(self, arguments, code, told, command, tmp_path):
        printed = command("data", "prepare", *arguments, code=code)
        assert told in printed.err and not list(tmp_path.iterdir())
