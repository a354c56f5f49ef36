"""`fundus-seg data init` on folders of every layout and coding: what it writes, and what it asks."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_masks import coded, eye
from PIL import Image, ImageFilter

from fundus_seg.data.coding import DOFE, LABELS, Coding, Thresholds
from fundus_seg.data.domain_file import read_domain_file
from fundus_seg.data.find import find_domains
from fundus_seg.data.init_file import write_domain_file
from fundus_seg.data.survey import is_flat
from fundus_seg.errors import DataError


def photograph(path, seed=0):
    noise = np.random.default_rng(seed).integers(60, 200, (40, 40, 3), np.uint8)
    put(path, Image.fromarray(noise))


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def labels(shift=0):
    return Image.fromarray(coded(eye(shift), 0, 1, 2))


def binary(structure, shift=0):
    return Image.fromarray(255 * eye(shift)[["disc", "cup"].index(structure)].astype(np.uint8))


def fill(folder, masks, names=("1", "2", "3"), image="images/{}.png"):
    """Photographs by their pattern, and for each pattern of masks what draws one from a shift."""
    for number, name in enumerate(names):
        photograph(folder / image.format(name), number)
        for pattern, draw in masks.items():
            put(folder / pattern.format(*[name] * 3), draw(number))


def cases_of(folder):
    """The numbers of cases of each split in the written file, of which every case has all its files."""
    found = find_domains(read_domain_file(folder / "domains.yaml"))
    assert [
        problem for split in found.splits.values() for problem in split.problems if "by its name" not in str(problem)
    ] == []
    return {place: len(split.cases) for place, split in found.splits.items()}


def domain_in(folder):
    write_domain_file(folder)
    (domain,) = read_domain_file(folder / "domains.yaml")
    return domain


class TestLayouts:
    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ("images/{}.png", "masks/{}.png"),
            ("Images/eye{}.JPG", "GT/eye{}.bmp"),
            ("{}.png", "{}_mask.png"),
            ("a/{}_image.png", "a/{}_label.png"),
            ("imagesTr/eye_{}_0000.png", "labelsTr/eye_{}.png"),
            ("cases/{}/photo.png", "cases/{}/drawing.png"),
            ("Café [v2] {{x}}/Fundus №{}.png", "Café [v2] {{x}}/Masken/№{}.tif"),
            ("deep/er/and/er/{}.png", "elsewhere/{}/seg/{}-drawn.png"),
        ],
    )
    def test_photographs_find_their_masks(self, tmp_path, image, mask):
        fill(tmp_path, {mask: labels}, image=image)
        domain = domain_in(tmp_path)
        assert domain.train.annotation.coding == LABELS
        assert sum(cases_of(tmp_path).values()) == 3

    def test_splits_and_domains_by_the_words_of_folders(self, tmp_path):
        for split in ("Training400", "Test400"):
            for centre in ("North", "South"):
                fill(tmp_path, {f"{split}/{centre}/masks/{{}}.png": labels}, image=f"{split}/{centre}/images/{{}}.jpg")
        write_domain_file(tmp_path)
        assert [domain.key for domain in read_domain_file(tmp_path / "domains.yaml")] == ["North", "South"]
        assert set(cases_of(tmp_path).values()) == {3}

    def test_diagnoses_are_no_domains(self, tmp_path):
        for number, (place, gt) in enumerate((("Glaucoma", "G"), ("Non-Glaucoma", "N"))):
            names = [f"{gt.lower()}{each}" for each in range(3)]
            fill(tmp_path, {f"R-Train/GT/{gt}/{{}}.bmp": labels}, names, f"R-Train/{place}/{{}}.jpg")
            fill(
                tmp_path, {f"R-Test-GT/{gt}/{{}}.bmp": labels}, [f"t{number}{each}" for each in names], "R-Test/{}.jpg"
            )
        domain = domain_in(tmp_path)
        assert domain.key == "R"
        assert domain.train.images.text == "R-Train/*/{name}.jpg"
        assert cases_of(tmp_path) == {("R", "train"): 6, ("R", "test"): 6}

    def test_a_third_split_is_left_out_with_a_question(self, tmp_path):
        for split in ("train", "val", "test"):
            fill(tmp_path, {f"{split}/masks/{{}}.png": labels}, image=f"{split}/images/{{}}.png")
        assert domain_in(tmp_path).test is not None
        assert (
            "# ? val/images/{name}.png is a third split, which is not taken" in (tmp_path / "domains.yaml").read_text()
        )

    def test_a_validation_split_is_the_test_split_where_there_is_no_other(self, tmp_path):
        for split in ("train", "val"):
            fill(tmp_path, {f"{split}/masks/{{}}.png": labels}, image=f"{split}/images/{{}}.png")
        assert domain_in(tmp_path).test.images.text == "val/images/{name}.png"

    def test_two_files_for_a_case(self, tmp_path):
        fill(
            tmp_path,
            {"{}_OD.png": lambda n: binary("disc", n), "{}_OC.png": lambda n: binary("cup", n)},
            image="{}.png",
        )
        domain = domain_in(tmp_path)
        assert [pattern.text for pattern in domain.train.mask_patterns] == ["{name}_OD.png", "{name}_OC.png"]
        assert domain.train.images.text == "*[0-9].png"
        assert sum(cases_of(tmp_path).values()) == 3

    def test_annotators(self, tmp_path):
        masks = {
            f"Expert{reader}/{{}}-{structure}-exp{reader}.png": lambda n, structure=structure: binary(structure, n)
            for reader in (1, 2)
            for structure in ("disc", "cup")
        }
        fill(tmp_path, masks)
        domain = domain_in(tmp_path)
        assert domain.train.masks[1][0].text == "Expert2/{name}-disc-exp2.png"
        assert "majority, which is all of two" in (tmp_path / "domains.yaml").read_text()
        assert sum(cases_of(tmp_path).values()) == 3

    def test_merged_masks_come_before_those_of_annotators(self, tmp_path):
        fill(
            tmp_path,
            {f"Majority_STAPLE/{each}/{{}}.png": labels for each in ("Expert 1", "Expert 2", "Majority", "Mean")},
        )
        assert domain_in(tmp_path).train.masks[0][0].text == "Majority_STAPLE/Majority/{name}.png"
        text = (tmp_path / "domains.yaml").read_text()
        assert text.count("# ? further masks, which are not taken") == 3

    def test_cropped_versions_are_left_out(self, tmp_path):
        for version in ("", "_Cropped", "_Square"):
            fill(tmp_path, {f"Masks{version}/{{}}.png": labels}, image=f"Images{version}/{{}}.jpg")
        assert domain_in(tmp_path).train.images.text == "Images/{name}.jpg"

    def test_whole_frames_beside_regions_of_interest_are_left_out(self, tmp_path):
        for inside in ("", "ROIs/"):
            for split in ("train", "test"):
                place = f"Fundus/Domain2/{split}/{inside}"
                fill(tmp_path, {f"{place}mask/{{}}.png": labels}, image=f"{place}image/{{}}.png")
        assert domain_in(tmp_path).train.images.text == "Fundus/Domain2/train/ROIs/image/{name}.png"

    def test_an_out_elsewhere_has_paths_to_the_folder(self, tmp_path):
        fill(tmp_path / "data [v2] {x}", {"masks/{}.png": labels})
        write_domain_file(tmp_path / "data [v2] {x}", tmp_path / "mine.yaml")
        (domain,) = read_domain_file(tmp_path / "mine.yaml")
        assert len(domain.train.images.find().files) == 3

    def test_folders_of_patients_are_one_domain(self, tmp_path):
        for clinic in ("north", "south"):
            for number in range(4):
                below, names = tmp_path / f"{clinic}/p{number}", [f"{number}_OD", f"{number}_OS"]
                fill(below, {"seg/{}.png": labels}, names, image="img/{}.png")
        path = write_domain_file(tmp_path).path
        assert sum(cases_of(tmp_path).values()) == 16
        text = path.read_text()
        assert text.count('    # patient: "{patient}/*/*"  # ? if each of these folders is a patient') == 2
        path.write_text(text.replace("# patient", "patient"))
        found = find_domains(read_domain_file(path)).splits
        patients = {(case.domain, case.patient) for split in found.values() for case in split.cases}
        assert patients == {(clinic, f"p{number}") for clinic in ("north", "south") for number in range(4)}

    def test_names_of_two_eyes_suggest_the_patient(self, tmp_path):
        fill(tmp_path, {"masks/{}.png": labels}, [f"RET00{number}{eye}" for number in (1, 2) for eye in ("OD", "OS")])
        path = write_domain_file(tmp_path).path
        text = path.read_text()
        assert '# patient: "{patient}O[DS]"  # ?' in text
        path.write_text(text.replace("# patient", "patient"))
        (domain,) = read_domain_file(path)
        found = find_domains([domain]).splits
        assert {case.patient for split in found.values() for case in split.cases} == {"RET001", "RET002"}

    def test_masks_of_the_optic_disc_suggest_no_eye(self, tmp_path):
        fill(tmp_path, {"masks/{}_OD.png": lambda n: binary("disc", n)})
        assert "patient" not in write_domain_file(tmp_path).path.read_text()


def in_colours(*colours):
    return lambda number: Image.fromarray(np.array(colours, np.uint8)[np.asarray(labels(number))])


def smooth(draw):
    return lambda number: draw(number).resize((400, 400), 0).filter(ImageFilter.GaussianBlur(4)).resize((160, 160))


class TestCodings:
    @pytest.mark.parametrize(
        ("draw", "suffix", "coding"),
        [
            (labels, "png", LABELS),
            (in_colours(255, 128, 0), "bmp", DOFE),
            (in_colours(0, 128, 255), "tif", Coding((0,) * 3, (128,) * 3, (255,) * 3)),
            (in_colours(0, 2, 1), "png", Coding((0,) * 3, (2,) * 3, (1,) * 3)),
            (in_colours((9, 9, 60), (255, 0, 90), (0, 200, 7)), "png", Coding((9, 9, 60), (255, 0, 90), (0, 200, 7))),
            (lambda n: in_colours(255, 128, 0)(n).convert("P"), "png", DOFE),
            (lambda n: in_colours(255, 128, 0)(n).convert("RGBA"), "png", DOFE),
            (lambda n: Image.fromarray(np.asarray(labels(n)).astype(np.uint16)), "png", LABELS),
            (smooth(in_colours(0, 128, 255)), "png", Thresholds(">=64", ">=192")),
        ],
        ids=["labels", "dofe", "inverted", "exchanged", "colours", "palette", "RGBA", "16 bits", "smooth"],
    )
    def test_one_file_for_a_case(self, tmp_path, draw, suffix, coding):
        fill(tmp_path, {f"masks/{{}}.{suffix}": draw})
        assert domain_in(tmp_path).train.annotation.coding == coding
        assert "3 of 3 masks show" in (tmp_path / "domains.yaml").read_text()

    @pytest.mark.parametrize(
        ("change", "coding"),
        [
            (lambda mask: mask, None),
            (lambda mask: mask.convert("1"), None),
            (lambda mask: mask.point(lambda grey: grey // 255), None),
            (lambda mask: mask.point(lambda grey: 255 - grey), Thresholds("<=127", "<=127")),
            (lambda mask: smooth(lambda _: mask)(0), Thresholds(">=128", ">=128")),
        ],
        ids=["0 and 255", "1 bit", "0 and 1", "black inside", "smooth"],
    )
    def test_two_files_for_a_case(self, tmp_path, change, coding):
        fill(tmp_path, {f"{each}/{{}}.png": lambda n, each=each: change(binary(each, n)) for each in ("disc", "cup")})
        assert domain_in(tmp_path).train.annotation.coding == coding

    def test_one_structure_alone_is_taken_for_the_disc_with_a_question(self, tmp_path):
        fill(tmp_path, {"gt/{}.png": lambda n: binary("disc", n)})
        written = write_domain_file(tmp_path)
        text = written.path.read_text()
        assert 'masks: {disc: "gt/{name}.png"}' in text
        assert "# ? its masks show one structure alone, which is taken for the disc; is it?" in text
        assert written.questions == 2
        assert read_domain_file(written.path)[0].train.annotation.unannotated_cup == "missing"

    def test_mixed_codings_are_counted_and_asked_about(self, tmp_path):
        fill(tmp_path, {"gt/{}.png": lambda n: labels(n) if n else in_colours(255, 128, 0)(n)})
        said = "\n".join(write_domain_file(tmp_path).lines)
        assert "2 of 3 masks show cup 2, rim 1, background 0; 1 show cup 0, rim 128, background 255, as 1.png" in said
        assert "# ? 1 of 3 masks show cup 0, rim 128, background 255" in (tmp_path / "domains.yaml").read_text()

    def test_smooth_colours_are_named_though_nothing_reads_them(self, tmp_path):
        fill(tmp_path, {"gt/{}.png": smooth(in_colours((0, 0, 0), (255, 0, 0), (0, 255, 0)))})
        write_domain_file(tmp_path)
        text = (tmp_path / "domains.yaml").read_text()
        assert 'coding: {cup: "#00ff00", rim: "#ff0000", background: 0}' in text
        assert "# ? borders are smooth between colours" in text


class TestRefusals:
    def test_nothing_is_overwritten_without_force(self, tmp_path):
        fill(tmp_path, {"masks/{}.png": labels})
        (tmp_path / "domains.yaml").write_text("mine")
        with pytest.raises(DataError, match=r"domains\.yaml: is there already; give --force"):
            write_domain_file(tmp_path)
        assert (tmp_path / "domains.yaml").read_text() == "mine"
        write_domain_file(tmp_path, force=True)
        assert "domains:" in (tmp_path / "domains.yaml").read_text()

    def test_outlines_are_named_with_the_command_that_draws_them(self, tmp_path):
        for name in ("RET002OD", "RET002OS"):
            photograph(tmp_path / "FundusImages" / f"{name}.jpg")
            (tmp_path / "Contours").mkdir(exist_ok=True)
            (tmp_path / "Contours" / f"{name}_cup_exp1.txt").write_text("1.0 2.0\n")
        with pytest.raises(DataError, match=r"2 texts that may be outlines \(`fundus-seg data prepare --list`"):
            write_domain_file(tmp_path)
        assert not (tmp_path / "domains.yaml").exists()

    def test_what_was_sought_is_said(self, tmp_path):
        fill(tmp_path, {"masks/mask of {} .png": labels}, ["Eye1", "Eye2"], "images/eye-{}.png")
        (tmp_path / "images/eye-Eye1.png").unlink()
        (tmp_path / "images/eye-Eye2.png").unlink()
        photograph(tmp_path / "images/EYE1.png")
        (tmp_path / "masks/x.gif").write_bytes(b"GIF")
        message = "1 photograph without a mask, 2 masks without a photograph, 1 file of other kinds, as x.gif"
        with pytest.raises(DataError, match=rf"{message}\. Looked in all subfolders for pictures"):
            write_domain_file(tmp_path)

    def test_cups_alone(self, tmp_path):
        fill(tmp_path, {"cup/{}.png": lambda n: binary("cup", n)})
        with pytest.raises(DataError, match="3 files, masks of the cup alone, without the disc"):
            write_domain_file(tmp_path)

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(DataError, match="no such folder"):
            write_domain_file(tmp_path / "none")


def test_the_command_says_what_it_understood_and_what_is_left_out(tmp_path, command):
    fill(tmp_path / "data", {"masks/{}.png": labels}, ["1", "2", "3", "4"])
    (tmp_path / "data/masks/4.png").unlink()
    photograph(tmp_path / "data/more/x.png")
    printed = command("data", "init", "data")
    assert printed.out == "data/domains.yaml\n"
    assert "domain data: 3 cases, split by a hash of their names; coding labels: 3 of 3 masks show cup 2" in printed.err
    assert "left out: 1 photograph, without a mask: data/more/x.png" in printed.err
    assert "left out: 1 photograph, without a mask, though a pattern finds it: data/images/4.png" in printed.err
    assert "1 line with a question mark to look at; then: fundus-seg data check data/domains.yaml" in printed.err
    assert "give --force" in command("data", "init", "data", code=1).err
    command("data", "init", "data", "--force", "--strict", code=3)


def test_masks_are_told_from_photographs_by_their_colours():
    assert is_flat(np.asarray(smooth(in_colours(255, 128, 0))(0).convert("RGB")))
    assert is_flat(np.zeros((40, 40, 3), np.uint8))
    field = np.random.default_rng(0).integers(40, 200, (100, 100, 3), np.uint8)
    field[:, :30] = 0  # outside the round field of view
    assert not is_flat(field)
