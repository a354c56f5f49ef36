"""`data prepare`: trees with the published names and numbers of each set, whole and with each quirk."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from io import BytesIO

import numpy as np
import openpyxl
import pytest
import raw_trees
from PIL import Image
from raw_trees import HEIGHT, WIDTH, encoded, greys, laid, photograph, pixels_of, zipped

from fundus_seg.data import open_root
from fundus_seg.data.crop import whole_frame
from fundus_seg.data.io import read_mask
from fundus_seg.datasets import SETS, data_set
from fundus_seg.datasets.dofe_split import members
from fundus_seg.datasets.finding import find_cases
from fundus_seg.datasets.prepare import prepare
from fundus_seg.datasets.raw import Raw
from fundus_seg.errors import DataError, UsageError

TREES = {
    "drishti-gs": raw_trees.drishti,
    "rim-one-r3": raw_trees.rim_one_r3,
    "refuge-train": raw_trees.refuge_train,
    "refuge-val": raw_trees.refuge_val,
    "refuge-test": raw_trees.refuge_test,
    "dofe": raw_trees.dofe,
}
IN_DOFE = {"drishti-gs": "A", "rim-one-r3": "B", "refuge-train": "C", "refuge-val": "D"}
FIRST = "Drishti-GS1_files/Training/Images/drishtiGS_002.png"
"""The first photograph of the training set of Drishti-GS."""
MANY = ("0_ODsegSoftmap.png", "1_ODsegSoftmap.png")
"""How the paths of 21 maps end."""


def prepared(name, paths, out, *, allow_missing=False, force=False, **rules):
    dataset = data_set(name)
    given = rules if dataset.as_is or "scale_to_disc" in rules else {"crop": "32"} | rules
    return prepare(dataset, paths, out, dataset.rules(**given), allow_missing=allow_missing, force=force)


def found(name, tree, tmp_path, **rules):
    """What is found in a zip of a tree, unpacked where it must be."""
    (tmp_path / "scratch").mkdir(exist_ok=True)
    raw = Raw([zipped(tree, tmp_path / "raw.zip")], tmp_path / "scratch")
    return find_cases(data_set(name), data_set(name).rules(**rules), raw)


def some(tree, *names):
    """The files of a tree that belong to some cases."""
    return {path: content for path, content in tree.items() if any(name in path for name in names)}


def rows_of(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def workbook(*rows):
    book, content = openpyxl.Workbook(), BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(content)
    return content.getvalue()


class TestWhole:
    @pytest.mark.parametrize("name", TREES)
    def test_every_case_is_found_by_its_published_name(self, name, tmp_path):
        whole = found(name, TREES[name](), tmp_path)
        assert (whole.problems, whole.copies) == ([], [])
        assert {case.name for case in whole.cases} == set(data_set(name).names)
        assert len(whole.cases) == sum(data_set(name).counts.values())

    @pytest.mark.parametrize("name", IN_DOFE)
    def test_the_benchmarks_split(self, name):
        dofe = {each[1:] if name == "drishti-gs" else each: split for each, split in members(IN_DOFE[name]).items()}
        assert (data_set(name).dofe, data_set(name).split) == (dofe, "dofe")
        assert set(dofe) == set(data_set(name).names)

    def test_a_root_that_opens(self, tmp_path):
        made = prepared("drishti-gs", [laid(raw_trees.drishti(), tmp_path / "raw")], tmp_path / "out")
        root = open_root(tmp_path / "out", least=1)
        assert (root.path, root.domains) == (made.domain_file, ("drishti-gs",))
        assert [len(root.cases("drishti-gs", split)) for split in ("train", "test")] == [50, 51]
        assert {row["name"]: row["split"] for row in rows_of(tmp_path / "out").values()} == data_set("drishti-gs").dofe
        case = root.cases("drishti-gs", "train")[0]
        disc, cup = raw_trees.drawn()
        assert (np.asarray(Image.open(case.image)) == pixels_of()[4:36, 8:40]).all()
        assert (read_mask(case.mask) == np.stack([disc, cup])[:, 4:36, 8:40]).all()

    def test_the_archive_is_copied_as_it_is(self, tmp_path):
        tree = raw_trees.dofe()
        coloured = encoded(np.stack([greys(255, 128, 0)] * 3, axis=-1), "PNG")
        tree["Fundus/Domain3/train/ROIs/mask/g0003.png"] = coloured
        prepared("dofe", [zipped(tree, tmp_path / "DoFE.zip")], tmp_path / "out")
        written = tmp_path / "out/dofe/Domain3/train/ROIs"
        assert (written / "mask/g0003.png").read_bytes() == coloured
        assert (written / "image/g0003.png").read_bytes() == photograph()
        for data in ("out", "out/dofe"):
            root = open_root(tmp_path / data)
            sizes = [len(root.cases(key, split)) for key in root.domains for split in ("train", "test")]
            assert sizes == [50, 51, 99, 60, 320, 80, 320, 80]


class TestDrishti:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("Drishti-GS1_files/", "Drishti-GS1_files/Drishti-GS1_files/"),
            ("Drishti-GS1_files/Training/", "Training-20211018T055246Z-001/Training/"),
            ("/Images/", "/Images/GLAUCOMA/"),
            ("Drishti-GS1_files/Test/Test_GT", "data/Test/GT"),
            ("/Images/", "/Images/ALL/"),
            (".png", ".PNG"),
            ("drishtiGS_0", "DrishtiGS_0"),
        ],
    )
    def test_repacks(self, old, new, tmp_path):
        whole = found("drishti-gs", {path.replace(old, new): x for path, x in raw_trees.drishti().items()}, tmp_path)
        assert not whole.problems and {case.name for case in whole.cases} == set(data_set("drishti-gs").names)

    def test_patients_of_the_table(self, tmp_path):
        table = workbook(
            ["Drishti-GS1"],
            [],
            ["Drishti-GS File", "Marking 1", "Total", "Patient ID"],
            ["drishtiGS_002.png'", "x", "Glaucomatous", 17],
            ["drishtiGS_004'", "x", "Glaucomatous", "P 17"],
        )
        whole = found("drishti-gs", raw_trees.drishti() | {"x/Drishti-GS1_diagnosis.xlsx": table}, tmp_path)
        details = {case.name: case.details for case in whole.cases}
        assert [details[f"drishtiGS_00{number}"].patient for number in (1, 2, 4)] == ["", "17", "P 17"]
        diagnoses = [each.diagnosis for each in details.values()]
        assert [diagnoses.count(word) for word in ("glaucoma", "normal")] == [70, 31]

    def test_a_table_that_cannot_be_read_is_a_problem(self, tmp_path):
        whole = found("drishti-gs", raw_trees.drishti() | {"Drishti-GS1_diagnosis.xlsx": b"PK"}, tmp_path)
        assert [str(each.path) for each in whole.problems] == [f"{tmp_path}/raw.zip/Drishti-GS1_diagnosis.xlsx"]

    def test_experts_who_agree(self, tmp_path):
        tree = some(raw_trees.drishti(), "drishtiGS_002")
        level = encoded(greys(0, 128, 255), "PNG")
        tree = {path: level if "ODseg" in path else content for path, content in tree.items()}
        sizes = {}
        for agreement in (2, 3):
            out = tmp_path / str(agreement)
            made = [zipped(tree, tmp_path / "raw.zip")], out
            prepared("drishti-gs", *made, allow_missing=True, agreement=agreement)
            sizes[agreement] = read_mask(out / "drishti-gs/train/ROIs/mask/drishtiGS_002.png")[0].sum()
        assert sizes == {2: 16 * 16, 3: 8 * 8}


class TestRimOne:
    TREE = raw_trees.rim_one_r3()

    def test_the_highest_revision_and_names_without_one(self, tmp_path):
        old, new = "Healthy/Expert1_masks/N-1-L-1-Disc-exp1.png", "Healthy/Expert1_masks/N-1-L-12-Disc-exp1.png"
        tree = {**self.TREE, f"RIM-ONE r3/{new}": b"newest", f"RIM-ONE r3/{new.replace('-12-', '-2-')}": b"older"}
        tree = {path.replace("S-2-R-1-Disc", "S-2-R-Disc"): content for path, content in tree.items()}
        whole = found("rim-one-r3", tree, tmp_path, reader="expert1")
        assert old in "".join(self.TREE) and not whole.problems
        (case,) = (case for case in whole.cases if case.name == "N-1-L")
        assert case.truths["expert1"][0].name.endswith(new)

    def test_readers_are_combined(self, tmp_path):
        assert set(found("rim-one-r3", self.TREE, tmp_path, reader="majority").cases[0].truths) == {
            "expert1",
            "expert2",
        }

    def test_the_masks_of_each_reader_are_kept(self, tmp_path):
        tree = some(self.TREE, "N-1-L")
        disc = encoded(raw_trees.drawn(width=2144, height=24, shift=-570)[0].astype(np.uint8) * 255, "PNG")
        tree["RIM-ONE r3/Healthy/Expert2_masks/N-1-L-1-Disc-exp2.png"] = disc
        prepared("rim-one-r3", [zipped(tree, tmp_path / "raw.zip")], tmp_path / "out", allow_missing=True, reader="all")
        (case,) = open_root(tmp_path / "out", least=1).cases("rim-one-r3", "test")
        assert [masks[0].parent.name for masks in case.masks] == ["expert1", "expert2"]
        first, second = (read_mask(masks[0])[0] for masks in case.masks)
        assert (np.roll(first, 2, axis=1) == second).all() and first.any()
        row = rows_of(tmp_path / "out")["N-1-L"]
        assert (row["left"], row["reader"]) == ("485", "all")  # about both discs: columns 492 to 509

    def test_the_left_view_alone(self, tmp_path):
        """The disc lies at column 500 of the left view: a crop of 1400 would reach into the right one."""
        raw = [zipped(some(self.TREE, "N-1-L"), tmp_path / "raw.zip")]
        prepared("rim-one-r3", raw, tmp_path / "out", allow_missing=True, crop="1400x24")
        row = rows_of(tmp_path / "out")["N-1-L"]
        image = np.asarray(Image.open(tmp_path / "out/rim-one-r3/test/ROIs/image/N-1-L.png"))
        assert (row["left"], row["pad_left"], row["pad_right"], row["frame_width"]) == ("-200", "200", "128", "2144")
        assert not image[:, 1272:].any() and image[:, 200:1272].all()
        assert (row["eye"], row["diagnosis"], row["reader"]) == ("left", "normal", "average")


class TestRefuge:
    def test_what_lies_beside_the_set_is_left_out(self, tmp_path):
        beside = {
            "Training400/AMD/A0012.jpg": b"damaged",
            "Training400/Illustration/g0001.jpg": b"drawn",
            "Training400/Glaucoma/g0001.txt": b"",
            "REFUGE/train/Images_Cropped/g0001.jpg": b"cropped",
        }
        whole = found("refuge-train", raw_trees.refuge_train() | beside, tmp_path)
        assert (whole.problems, whole.copies, len(whole.cases)) == ([], [], 400)

    def test_doubled_folders(self, tmp_path):
        tree = {f"REFUGE-{path}".replace("/", "/X/", 1): content for path, content in raw_trees.refuge_train().items()}
        assert not found("refuge-train", tree, tmp_path).problems

    def test_zips_in_the_zip_with_masks_twice(self, tmp_path):
        photographs, masks = {}, {}
        for path, content in raw_trees.refuge_train().items():
            (photographs if path.endswith("jpg") else masks)[path] = content
        inner = {
            "REFUGE2/REFUGE-Training400.zip": zipped(photographs, tmp_path / "a.zip").read_bytes(),
            "REFUGE2/Annotation-Training400.zip": zipped(masks, tmp_path / "b.zip").read_bytes(),
            "REFUGE2/Disc_Cup_Masks.zip": zipped(masks, tmp_path / "c.zip").read_bytes(),
            "__MACOSX/REFUGE2/._Disc_Cup_Masks.zip": b"noise",
        }
        whole = found("refuge-train", inner, tmp_path)
        assert not whole.problems and len(whole.cases) == len(whole.copies) == 400

    def test_the_pack_of_labels(self, tmp_path):
        """Masks of 0, 1 and 2 beside `gts` of 0, 128 and 255: the originals are taken where they are there."""
        tree = {"REFUGE/test/Images/T0001.jpg": photograph("JPEG"), "REFUGE/test/Images/T0002.jpg": photograph("JPEG")}
        tree |= {f"REFUGE/test/Masks/T000{number}.png": encoded(greys(0, 1, 2), "PNG") for number in (1, 2)}
        tree |= {"REFUGE/test/gts/T0002.bmp": encoded(greys(255, 128, 0), "BMP")}
        prepared("refuge-test", [zipped(tree, tmp_path / "raw.zip")], tmp_path / "out", allow_missing=True)
        rows = rows_of(tmp_path / "out")
        assert [rows[name]["truth"][-9:] for name in ("T0001", "T0002")] == ["T0001.png", "T0002.bmp"]
        one, two = (
            read_mask(tmp_path / f"out/refuge-test/{rows[name]['split']}/ROIs/mask/{name}.png")
            for name in ("T0001", "T0002")
        )
        assert (one == two).all() and one[1].sum() == 64

    def test_diagnoses(self, tmp_path):
        of_train = {
            case.name: case.details.diagnosis for case in found("refuge-train", TREES["refuge-train"](), tmp_path).cases
        }
        assert (of_train["g0040"], of_train["n0001"]) == ("glaucoma", "normal")
        of_test = {
            case.name: case.details.diagnosis for case in found("refuge-test", TREES["refuge-test"](), tmp_path).cases
        }
        assert (of_test["T0001"], of_test["T0400"]) == ("glaucoma", "normal")
        table = workbook(["ID", "ImgName", "Fovea_X", "Fovea_Y", "Glaucoma Label"], [1, "V0001.jpg", 1.5, 2.5, 1])
        tree = raw_trees.refuge_val() | {"REFUGE-Validation400-GT/Fovea_locations.xlsx": table}
        assert found("refuge-val", tree, tmp_path).cases[0].details.diagnosis == "glaucoma"


class TestArchive:
    def test_the_membership_is_asserted(self, tmp_path):
        moved = {
            path.replace("train/ROIs/image/g0003", "test/ROIs/image/g0003"): x for path, x in raw_trees.dofe().items()
        }
        lines = list(map(str, found("dofe", moved, tmp_path).problems))
        assert "dofe/Domain3/train: 319 photographs, expected 320 (ROIs/image/{name}.png)" in lines
        assert "dofe/g0003: in Domain3/test, though the archive has it in Domain3/train" in lines

    def test_wherever_rois_lies(self, tmp_path):
        tree = {path.replace("Fundus/", "a/b/").replace("/ROIs", "/x/ROIs"): y for path, y in raw_trees.dofe().items()}
        assert not found("dofe", tree, tmp_path).problems


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
