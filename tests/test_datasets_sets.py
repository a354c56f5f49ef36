"""`data prepare` of the sets beside the benchmark's four: each whole, and with each of its quirks."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
import raw_sets
from PIL import Image, ImageOps
from preparing import found, rows_of, some, workbook
from raw_sets import CUP, DISC, mat, polygons
from raw_trees import (
    HEIGHT,
    WIDTH,
    drawn,
    encoded,
    greys,
    laid,
    photograph,
    pixels_of,
    refuge_val,
    rim_one_r3,
    zipped,
)

from fundus_seg.data import open_root
from fundus_seg.data.io import read_mask
from fundus_seg.datasets import REFUSED, SETS, data_set
from fundus_seg.datasets.prepare import prepare
from fundus_seg.errors import DataError, UsageError

TREES = {
    "rim-one-dl": raw_sets.rim_one_dl,
    "origa": raw_sets.origa,
    "g1020": raw_sets.g1020,
    "papila": raw_sets.papila,
    "chaksu": raw_sets.chaksu,
    "gamma": raw_sets.gamma,
    "drions": raw_sets.drions,
}
WHOLE = np.stack(drawn())


def made(name, tree, tmp_path, *, allow_missing=False, **rules):
    """Prepare a tree of some cases as if they were the whole set; gives its rows and its folder."""
    dataset = replace(data_set(name), counts={}, names=())
    given = rules if "scale_to_disc" in rules else {"crop": "none"} | rules
    raw = [laid(tree, tmp_path / "raw")]
    prepare(dataset, raw, tmp_path / "out", dataset.rules(**given), allow_missing=allow_missing)
    return rows_of(tmp_path / "out"), tmp_path / "out" / name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What is found in the whole tree of a set, by its name."""
    return cache(lambda name: found(name, TREES[name](), tmp_path_factory.mktemp(name)))


def mask_of(row, folder):
    (path,) = folder.rglob(f"{row['split']}/ROIs/mask/{row['name']}.png")
    return read_mask(path)


class TestWhole:
    @pytest.mark.parametrize(("name", "cases"), [*zip(TREES, (485, 650, 1020, 488, 1345, 100, 110), strict=True)])
    def test_every_case_is_found(self, name, cases, whole):
        assert (whole(name).problems, len(whole(name).cases), whole(name).copies) == ([], cases, [])
        assert sum(data_set(name).counts.values()) == cases

    @pytest.mark.parametrize("name", TREES)
    def test_doubled_folders_and_endings(self, name, tmp_path):
        tree = {f"{name}/{name}/{path}": content for path, content in some(TREES[name](), "011").items()}
        tree = {path.replace(".jpg", ".JPG").replace(".png", ".PNG"): content for path, content in tree.items()}
        noise = {f"__MACOSX/{path.rpartition('/')[0]}/._{path.rpartition('/')[2]}": b"noise" for path in tree}
        some_found = found(name, tree | noise, tmp_path)
        kinds = {problem.text.partition("; expected")[0] for problem in some_found.problems}
        assert {kind for kind in kinds if not re.match(r"\d+ photographs?, expected", kind)} <= {"no photograph"}
        assert some_found.cases

    @pytest.mark.parametrize(("name", "case"), [("refuge-val", "V0001"), ("rim-one-r3", "N-1-L")])
    def test_masks_whose_greys_are_exchanged_are_refused(self, name, case, tmp_path):
        tree = {"refuge-val": refuge_val, "rim-one-r3": rim_one_r3}[name]()
        turned = {
            path: encoded(255 - np.asarray(Image.open(BytesIO(content))), "PNG") if "mask" in path.lower() else content
            for path, content in some(tree, case).items()
            if not path.endswith(".txt")
        }
        with pytest.raises(DataError, match=r"its disc covers the corners of the photograph"):
            made(name, turned, tmp_path)

    @pytest.mark.parametrize(("name", "case"), [("origa", "001"), ("g1020", "image_3"), ("refuge-train", "g0001")])
    def test_one_pack_of_three_sets(self, name, case, tmp_path):
        tree = some(raw_sets.origa(), "001.") | some(raw_sets.g1020(0), "image_3.")
        tree |= {
            "REFUGE/train/Images/g0001.jpg": photograph("JPEG"),
            "REFUGE/train/Images_Square/g0001.jpg": b"smaller",
        }
        tree |= {"REFUGE/train/Masks/g0001.png": encoded(greys(0, 1, 2), "PNG")}
        own = found(name, tree, tmp_path)
        assert [each.name for each in own.cases] == [case] and not own.copies
        assert all(problem.path.startswith(f"{name}/") for problem in own.problems)

    def test_a_root_of_several_sets_that_opens(self, tmp_path):
        """A camera of which nothing was downloaded is no domain."""
        forus = {path: x for path, x in raw_sets.chaksu(cameras=["Forus"]).items() if re.search(r"(19[3-8]|csv)", path)}
        trees = {"gamma": some(raw_sets.gamma(), "0001", "0005", "0009"), "chaksu": forus}
        for name, tree in trees.items():
            dataset = replace(data_set(name), counts={}, names=())
            prepare(dataset, [zipped(tree, tmp_path / f"{name}.zip")], tmp_path / "out", dataset.rules(crop="none"))
        root = open_root(tmp_path / "out", least=0)
        assert root.domains == ("chaksu-forus", "gamma")
        assert [len(root.cases("chaksu-forus", split)) for split in ("train", "test")] == [3, 3]


class TestRimOneDl:
    NAME = "r2_Im347"

    def test_one_partition_alone_is_taken(self, whole):
        cases = whole("rim-one-dl").cases
        assert all("/partitioned_randomly/" in case.photograph.name for case in cases)
        splits = [case.official for case in cases]
        assert [splits.count(split) for split in ("train", "test")] == [339, 146]

    def test_names_with_hyphens_and_what_they_say(self, whole):
        third = [case for case in whole("rim-one-dl").cases if case.name.startswith("r3_")]
        assert len(third) == 137 and {case.details.eye for case in third} == {"left", "right"}
        assert {case.details.diagnosis for case in third} == {"glaucoma", "normal"}

    def test_a_pack_without_folders_of_classes(self, tmp_path):
        tree = {}
        for path, content in raw_sets.rim_one_dl().items():
            path = path.replace("/glaucoma/", "/").replace("/normal/", "/")
            path = path.replace("randomly/training_set", "randomly/images/train")
            tree[path.replace("randomly/test_set", "randomly/images/test")] = content
        packed = found("rim-one-dl", tree, tmp_path)
        assert not packed.problems and not packed.cases[0].details.diagnosis

    def test_a_cup_that_leaks_is_clipped_and_counted(self, tmp_path):
        tree = some(raw_sets.rim_one_dl(), self.NAME)
        wide = np.zeros((HEIGHT, WIDTH), np.uint8)
        wide[18:22, 10:30] = 255
        tree = {path: encoded(wide, "PNG") if "Cup-T.png" in path else content for path, content in tree.items()}
        rows, folder = made("rim-one-dl", tree, tmp_path)
        assert rows[self.NAME]["cup_clipped"] == str(4 * 6)
        assert not (mask_of(rows[self.NAME], folder)[1] & ~WHOLE[0]).any()

    def test_small_crops_have_a_border_or_are_scaled(self, tmp_path):
        tree = some(raw_sets.rim_one_dl(), self.NAME)
        rows, folder = made("rim-one-dl", tree, tmp_path, crop="800")
        row = rows[self.NAME]
        assert (row["pad_left"], row["pad_right"], row["scale_x"]) == ("376", "376", "1.0")
        image = np.asarray(Image.open(folder / "test/ROIs/image/r2_Im347.png"))
        assert not image[:, :376].any() and mask_of(row, folder).sum() == WHOLE.sum()
        rows, _ = made("rim-one-dl", tree, tmp_path / "b", scale_to_disc=2)
        assert (rows[self.NAME]["width"], rows[self.NAME]["scale_x"]) == ("32", "25.0")

    def test_the_default_and_the_leak_are_stated(self):
        assert data_set("rim-one-dl").rules().crop == (800, 800)
        assert "leak" in data_set("rim-one-dl").note and "black" in data_set("rim-one-dl").note


class TestOriga:
    def test_smaller_copies_and_strays_are_not_taken(self, whole):
        files = [file for case in whole("origa").cases for file in (case.photograph, *case.truths["grader"])]
        assert {file.name.split("/")[2] for file in files} == {"Images", "Masks"}

    def test_the_table(self, whole):
        cases = {case.name: case for case in whole("origa").cases}
        assert (cases["001"].details.eye, cases["002"].details.eye) == ("right", "left")
        diagnoses = [case.details.diagnosis for case in cases.values()]
        assert [diagnoses.count(each) for each in ("glaucoma", "normal")] == [168, 482]
        assert [case.official for case in cases.values()].count("train") == 325

    def test_names_in_quotes(self, tmp_path):
        table = {"ORIGA/OrigaList.csv": b"Eye,Filename,ExpCDR,Set,Glaucoma\r\n'OD','001.jpg',0.7,'A',1\r\n"}
        case = found("origa", some(raw_sets.origa(), "001") | table, tmp_path).cases[0]
        assert (case.details.diagnosis, case.details.official) == ("glaucoma", "train")

    def test_the_official_split_needs_the_table(self, tmp_path):
        tree = some(raw_sets.origa(), "001")
        assert [case.name for case in found("origa", tree, tmp_path).cases] == ["001"]
        lacking = found("origa", tree, tmp_path, split="official").lacking
        assert lacking["001"] == "the download does not say its split; give --split hash"

    @pytest.mark.parametrize(
        "folder", ["Semi-automatic-annotations", "Semi-automatic-annotations-done-by-doctors-eg-ground-truth"]
    )
    def test_matlab_files_of_another_size(self, folder, tmp_path):
        double = greys(0, 1, 2).repeat(2, axis=0).repeat(2, axis=1)
        tree = {"ORIGA/ORIGA/Images/001.jpg": photograph("JPEG"), "ORIGA/ORIGA/Images/002.jpg": photograph("JPEG")}
        tree |= {f"ORIGA/ORIGA/{folder}/001.mat": mat(), f"ORIGA/ORIGA/{folder}/002.MAT": mat(mask=double)}
        rows, out = made("origa", tree, tmp_path)
        assert (mask_of(rows["001"], out) == WHOLE).all() and (mask_of(rows["002"], out) == WHOLE).all()
        assert "1 case of 2 with a mask of another size" in (out / "datasheet.md").read_text()

    def test_a_copy_without_masks(self, tmp_path):
        tree = {"ORIGA/Images/650.jpg": photograph("JPEG")}
        with pytest.raises(DataError, match=r"no whole case of origa in it .*no mask; expected ORIGA/Masks/650.png"):
            made("origa", tree, tmp_path)


class TestG1020:
    def test_cups_that_nobody_annotated_are_told(self, tmp_path):
        rows, folder = made("g1020", dict([*raw_sets.g1020(3).items()][: 9 * 5]), tmp_path)
        assert [rows[f"image_{number}"]["structures"] for number in (0, 3, 6, 9)] == ["disc"] * 3 + ["disc|cup"]
        assert (mask_of(rows["image_9"], folder) == WHOLE).all()
        disc, cup = mask_of(rows["image_0"], folder)
        assert (disc == WHOLE[0]).all() and not cup.any()
        assert "3 cases of 7 with no annotated cup: image_0, image_3, image_6" in (folder / "datasheet.md").read_text()
        assert "unannotated-cup: empty" in (tmp_path / "out/domains.yaml").read_text()

    def test_masks_where_there_are_no_polygons(self, tmp_path):
        tree = {"G1020/Images/image_5.jpg": photograph("JPEG"), "G1020/Images/image_7.jpg": photograph("JPEG")}
        masks = {5: greys(0, 1, 2), 7: greys(0, 1, 1)}
        tree |= {f"G1020/Masks/image_{number}.png": encoded(mask, "PNG") for number, mask in masks.items()}
        rows, folder = made("g1020", tree, tmp_path)
        assert (rows["image_5"]["structures"], rows["image_7"]["structures"]) == ("disc|cup", "disc")
        assert (mask_of(rows["image_5"], folder) == WHOLE).all()

    def test_polygons_in_a_folder_of_their_own(self, tmp_path):
        tree = {"G1020/Images/image_9.jpg": photograph("JPEG"), "G1020/json/image_9.json": polygons(disc=DISC, cup=CUP)}
        rows, folder = made("g1020", tree, tmp_path)
        assert (mask_of(rows["image_9"], folder) == WHOLE).all()

    def test_the_damaged_row_of_the_table(self, whole):
        diagnoses = {case.name: case.details.diagnosis for case in whole("g1020").cases}
        assert (diagnoses["image_747"], diagnoses["image_885"], diagnoses["image_888"]) == ("", "glaucoma", "normal")


class TestPapila:
    CASES = some(raw_sets.papila(), "RET002")

    def test_patients_and_eyes(self, whole, tmp_path):
        cases = whole("papila").cases
        assert len({case.details.patient for case in cases}) == 244
        assert [case.details.eye for case in cases[:2]] == ["right", "left"]
        rows, _ = made("papila", some(raw_sets.papila(), *(f"RET{number:03d}" for number in range(2, 8))), tmp_path)
        splits = {(row["patient"], row["split"]) for row in rows.values()}
        assert len(rows) == 12 and len(splits) == 6

    @pytest.mark.parametrize(
        ("reader", "width"),
        [("expert1", 16), ("expert2", 12), ("union", 16), ("intersection", 12), ("majority", 12)],
    )
    def test_readers(self, reader, width, tmp_path):
        rows, folder = made("papila", self.CASES, tmp_path, reader=reader)
        disc, cup = mask_of(rows["RET002OD"], folder)
        assert disc.sum() == width**2 and (cup == WHOLE[1]).all()

    def test_a_fault_in_a_contour_is_named_with_its_line(self, tmp_path):
        tree = {path: b"1 2\nthree 4\n" if path.endswith("cup_exp1.txt") else x for path, x in self.CASES.items()}
        with pytest.raises(DataError, match=r"RET002O._cup_exp1\.txt:2: not two numbers"):
            made("papila", tree, tmp_path)

    def test_the_default_is_the_first_expert(self):
        assert data_set("papila").rules().reader == "expert1"
        assert "no majority" in data_set("papila").note

    def test_diagnoses_below_three_rows_of_titles(self, tmp_path):
        table = workbook(
            [None, "Age", "Gender", "Diagnosis", "Refractive_Defect"],
            [None, None, None, None, "dioptre_1"],
            ["ID", None, None, None, None],
            ["#002", 47, 0, 2, 0.75],
        )
        tree = self.CASES | {"PapilaDB/ClinicalData/patient_data_os.xlsx": table}
        diagnoses = {case.name: case.details.diagnosis for case in found("papila", tree, tmp_path).cases}
        assert diagnoses == {"RET002OD": "", "RET002OS": "suspect"}


class TestChaksu:
    def test_three_domains_with_their_splits(self, whole):
        numbers = [(case.domain, case.official) for case in whole("chaksu").cases]
        for camera, (train, test, _) in raw_sets.CAMERAS.items():
            own = [numbers.count((f"chaksu-{camera.lower()}", split)) for split in ("train", "test")]
            assert own == [train, test]

    def test_a_missing_camera_is_counted(self, tmp_path):
        lines = list(map(str, found("chaksu", raw_sets.chaksu(cameras=["Forus"]), tmp_path).problems))
        assert len(lines) == 4
        assert any(line.startswith("chaksu/Remidio/train: 0 photographs, expected 810") for line in lines)

    def test_masks_with_four_channels(self, tmp_path):
        rows, folder = made("chaksu", some(raw_sets.chaksu(), "MG_1015", "mg_1015"), tmp_path)
        assert (mask_of(rows["remidio-IMG_1015"], folder) == WHOLE).all()
        assert rows["remidio-IMG_1015"]["reader"] == "majority"

    def test_fused_masks_and_single_experts(self, tmp_path):
        tree = raw_sets.chaksu(("Majority", "STAPLE"), range(1, 6), cameras=["Forus"])
        tree = some(tree, "/101.")
        assert [*found("chaksu", tree, tmp_path, reader="staple").cases[0].truths] == ["staple"]
        rows, folder = made("chaksu", tree, tmp_path, reader="union")
        assert rows["forus-101"]["truth"].count("3.0_Doctors_Annotations_Binary_OD_OC/Expert ") == 10
        assert (mask_of(rows["forus-101"], folder) == WHOLE).all()

    @pytest.mark.parametrize("orientation", [3, 6, 7, 8])
    def test_masks_of_a_telephone_that_was_turned(self, orientation, tmp_path):
        """Masks lie on the stored pixels, of which EXIF tells how the telephone was held."""
        stored, content, exif = Image.fromarray(pixels_of(shift=9)), BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        stored.save(content, "JPEG", exif=exif, quality=95)
        tree = {"Train/1.0_Original_Fundus_Images/Remidio/IMG_1.JPG": content.getvalue()}
        for structure, mask in zip(("Disc", "Cup"), drawn(shift=9), strict=True):
            path = f"Train/5.0_OD_OC_Mean_Median_Majority_STAPLE/Remidio/{structure}/Majority/img_1.png"
            tree[path] = encoded(mask.astype(np.uint8) * 255, "PNG")
        rows, folder = made("chaksu", tree, tmp_path)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(content)).convert("L"))
        disc, _ = mask_of(rows["remidio-IMG_1"], folder)
        assert upright[disc].min() > upright[~disc].max() and rows["remidio-IMG_1"]["orientation"] == str(orientation)
        assert "1 case of 1 with a mask drawn on the photograph as" in (folder / "datasheet.md").read_text()

    def test_diagnoses_of_odd_tables(self, whole):
        diagnoses = {case.name: case.details.diagnosis for case in whole("chaksu").cases}
        names = "bosch-Image101", "remidio-IMG_911", "forus-101"
        assert [diagnoses[name] for name in names] == ["normal", "suspect", ""]


class TestGamma:
    def test_the_same_photograph_of_another_task(self, whole, tmp_path):
        assert all("fundus color images" in case.photograph.name for case in whole("gamma").cases)
        tree = {path: content for path, content in raw_sets.gamma().items() if "fundus color images" not in path}
        assert len(found("gamma", tree, tmp_path).cases) == 100

    def test_grades(self, tmp_path):
        table = workbook(["data", "non", "early", "mid_advanced"], [1, 1, 0, 0], ["0002", 0, 0, 1])
        tree = raw_sets.gamma() | {"Glaucoma_grading/training/glaucoma_grading_training_GT.xlsx": table}
        grades = [case.details.diagnosis for case in found("gamma", tree, tmp_path).cases[:3]]
        assert grades == ["normal", "intermediate or advanced glaucoma", ""]

    def test_masks(self, tmp_path):
        rows, folder = made("gamma", some(raw_sets.gamma(), "0042"), tmp_path)
        assert (mask_of(rows["0042"], folder) == WHOLE).all()


class TestDrions:
    @pytest.mark.parametrize("folder", ["experts_anotation", "experts_annotation"])
    def test_cases_of_the_disc_alone(self, folder, tmp_path):
        tree = {path.replace("experts_anotation", folder): x for path, x in some(raw_sets.drions(), "_007").items()}
        rows, out = made("drions", tree, tmp_path, reader="union")
        disc, cup = mask_of(rows["image_007"], out)
        assert (disc == WHOLE[0]).all() and not cup.any()
        assert rows["image_007"]["structures"] == "disc"


@pytest.mark.parametrize("name", REFUSED)
def test_sets_that_are_refused_by_name(name):
    assert name not in SETS
    with pytest.raises(UsageError, match=f"{name}: it has") as error:
        data_set(name)
    assert "Take " in str(error.value) or "docs/domains.md" in str(error.value)
