"""`data prepare`: trees with the published names and numbers of each set, whole and with each quirk."""

from __future__ import annotations

import numpy as np
import pytest
import raw_trees
from PIL import Image
from preparing import found, prepared, rows_of, some, workbook
from raw_trees import encoded, greys, laid, photograph, pixels_of, zipped

from fundus_seg.data import open_root
from fundus_seg.data.io import read_mask
from fundus_seg.datasets import data_set
from fundus_seg.datasets.dofe_split import members

TREES = {
    "drishti-gs": raw_trees.drishti,
    "rim-one-r3": raw_trees.rim_one_r3,
    "refuge-train": raw_trees.refuge_train,
    "refuge-val": raw_trees.refuge_val,
    "refuge-test": raw_trees.refuge_test,
    "dofe": raw_trees.dofe,
}
IN_DOFE = {"drishti-gs": "A", "rim-one-r3": "B", "refuge-train": "C", "refuge-val": "D"}


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

    def test_labels_become_the_greys_that_its_domains_are_read_by(self, tmp_path):
        labels = encoded(greys(0, 1, 2), "PNG")
        tree = {path: labels if "/mask/" in path else x for path, x in some(raw_trees.dofe(), "g0003").items()}
        prepared("dofe", [laid(tree, tmp_path / "raw")], tmp_path / "out", allow_missing=True)
        mask = read_mask(tmp_path / "out/dofe/Domain3/train/ROIs/mask/g0003.png")
        assert (mask == np.stack(raw_trees.drawn())).all()
        assert "1 case of 1060 with a mask of labels" in (tmp_path / "out/datasheet.md").read_text()


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

    def test_names_without_spaces(self, tmp_path):
        tree = {path.replace(" ", "_"): content for path, content in self.TREE.items()}
        whole = found("rim-one-r3", tree, tmp_path)
        assert not whole.problems and len(whole.cases) == 159

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

    def test_the_download_of_the_second_challenge(self, tmp_path):
        """Its own photographs have the names of those of the first challenge, which it holds, too."""
        tree = {
            f"REFUGE2/Train/REFUGE1-val/{path.removeprefix('REFUGE-Validation400-GT/')}": content
            for path, content in raw_trees.refuge_val().items()
        }
        tree["REFUGE2/Train/REFUGE1-val/Fovea_locations.xlsx"] = workbook(
            ["ImgName", "Glaucoma Label"], ["V0001.jpg", 1]
        )
        tree["REFUGE2/Validation/Images/V0001.jpg"] = photograph("JPEG", shift=1)
        tree["REFUGE2/Validation/Disc_Masks/V0001.png"] = b"of the other"
        whole = found("refuge-val", tree, tmp_path)
        assert (whole.problems, len(whole.cases)) == ([], 400)
        assert whole.cases[0].details.diagnosis == "glaucoma"
        tree = raw_trees.refuge_test() | {"REFUGE2/Test/refuge2-test/T0001.jpg": photograph("JPEG", shift=1)}
        assert not found("refuge-test", tree, tmp_path).problems

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
