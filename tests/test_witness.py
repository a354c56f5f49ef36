"""What is wrong or odd about a group of true masks: every command that reads truth says the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from drawn_masks import DrawnModel, coded, save
from PIL import Image
from small_runs import Lines

from fundus_seg.config import load_config, resolve_sources
from fundus_seg.data.check import check_root
from fundus_seg.data.domain_file import read_coding
from fundus_seg.data.framing import Framing
from fundus_seg.data.layout import open_root
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.data.orientation import TURNS
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError
from fundus_seg.evaluation.external import score_masks
from fundus_seg.evaluation.which_cases import photographs_of, warn_of_odd_masks
from fundus_seg.inference.folder import predict_folder
from fundus_seg.reporting.atlas import make_atlas
from fundus_seg.reporting.audit_pairs import audit_pairs
from fundus_seg.training.run_data import load_run_data

CASES = {"train": 7, "test": 6}
SIZE = 64


def lopsided(seed):
    """Masks (2, H, W) of an eye far from the middle of its frame, whose cup lies to one side."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    top, left = 26 + seed, 36 - seed
    disc = np.hypot((rows - top) / 16, (columns - left) / 13) < 1
    cup = np.hypot((rows - top + 4) / 7, (columns - left - 3) / 5) < 1
    return np.stack([disc, cup & disc])


class Data:
    """Domains a and b on disk: b is sound, the files of a are what `write` makes of their masks."""

    def __init__(self, folder, write, *, coding="", binary=False, suffix=".png", exif=None):
        self.folder, self.coding, self.binary = folder, coding, binary
        rng = np.random.default_rng(0)
        for domain in "ab":
            for split, count in CASES.items():
                for number in range(count):
                    masks = lopsided(number)
                    grey = 60 + 80 * masks[0] + 60 * masks[1] + rng.normal(0, 8, masks.shape[1:])
                    place = folder / domain / split
                    photograph = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
                    save(place / f"photo/{number}.png", photograph)
                    if exif and domain == "a":
                        exif(place / f"photo/{number}.png", photograph)
                    if domain == "a":
                        write(place, number, masks)
                    else:
                        save(place / f"mask/{number}.png", coded(masks, 255, 128, 0))
        lines = ["domains:"]
        for domain in "ab":
            masks = f'"{domain}/{{0}}/mask/{{{{name}}}}{suffix if domain == "a" else ".png"}"'
            if binary and domain == "a":
                masks = '{{disc: "a/{0}/od/{{name}}.png", cup: "a/{0}/oc/{{name}}.png"}}'
            splits = ", ".join(
                f'{split}: {{images: "{domain}/{split}/photo/*.png", masks: {masks.format(split)}}}' for split in CASES
            )
            lines.append(f"  {domain}: {{{f'coding: {coding}, ' if coding and domain == 'a' else ''}{splits}}}")
        self.path = folder / "d.yaml"
        self.path.write_text("\n".join(lines))

    @property
    def truth(self) -> list[str]:
        """Where the true masks of a/test are."""
        return [str(self.folder / "a/test" / name) for name in (("od", "oc") if self.binary else ("mask",))]

    @property
    def given(self):
        return read_coding(self.coding) if self.coding else None

    def pairs(self, told):
        for number in range(CASES["test"]):
            save(self.folder / f"pred/{number}.png", coded(lopsided(number), 255, 128, 0))
        return pair_masks([str(self.folder / "pred")], self.truth, truth_coding=self.given, progress=told)


class Circles(DrawnModel):
    """A model whose disc and cup are circles."""

    framing = Framing(0.1, 1.0)

    def __call__(self, image):
        rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
        return np.stack([np.hypot(rows, columns) < 16, np.hypot(rows, columns) < 7])


def _settings(data, holdout):
    root = open_root(data.path)
    config = load_config("tiny", overrides=["train.selection=last"], arguments={"holdout": holdout})
    return resolve_sources(config, root.domains, where=root.path), root


def check(data, told):
    found = check_root(open_root(data.path))
    told.lines += [str(each) for each in found.findings if "the same " not in each.text]


def train(data, told):
    load_run_data(*_settings(data, "b"), progress=told)


def evaluate(data, told):
    config, root = _settings(data, "a")
    photographs_of(root.cases("a", "test"), root, config, progress=told)
    again = Lines()
    warn_of_odd_masks(root.cases("a", "test"), root, config, progress=again)
    assert again.lines == [line for line in told.lines if line.startswith("warning")]


def atlas(data, told):
    make_atlas(open_root(data.path), progress=told)


def predict(data, told):
    predict_folder(
        data.path,
        [data.folder / "a/test/photo"],
        data.folder / "out",
        truth=data.truth,
        truth_coding=data.given,
        progress=told,
    )


def score(data, told):
    score_masks(data.pairs(told), progress=told)


def audit(data, told):
    list(audit_pairs(data.pairs(told), progress=told))


READERS: list[Callable[[Data, Lines], None]] = [check, train, evaluate, atlas, predict, score, audit]


@pytest.fixture(params=READERS, ids=lambda reader: reader.__name__)
def said(request, monkeypatch) -> Callable[[Data], list[str]]:
    """A function that gives the errors and warnings of one command about domain a, the errors marked."""
    monkeypatch.setattr("fundus_seg.inference.predict.load_model", lambda path, **_: Circles())

    def run(data) -> list[str]:
        told = Lines()
        try:
            request.param(data, told)
        except DataError as error:
            return [f"error: {problem}" for problem in error.problems]
        expected = (
            "coding of the",
            "post-processing",
            "are the mask of another case",  # all domains have the same masks
            "status: ",
        )
        return [line for line in told.lines if not any(text in line for text in expected)]

    run.command = request.param.__name__
    return run


def two_maps(disc, cup):
    def write(place, number, masks):
        for name, change, mask in (("od", disc, masks), ("oc", cup, masks)):
            save(place / f"{name}/{number}.png", np.asarray(change(mask), np.uint8))

    return write


def one_map(background, rim, cup):
    return lambda place, number, masks: save(place / f"mask/{number}.png", coded(masks, background, rim, cup))


DISC, CUP = (lambda masks: 200 * masks[0] + 20), (lambda masks: 200 * masks[1] + 20)
THRESHOLDS = {
    "wrong way": (two_maps(DISC, CUP), '"<=127"', r'coding: ">=\d+"'),
    "inverted": (two_maps(lambda m: 255 - DISC(m), lambda m: 255 - CUP(m)), '">=128"', r'coding: "<=\d+"'),
    "cup inverted": (two_maps(DISC, lambda m: 255 - CUP(m)), '">=128"', r'coding: {disc: ">=128", cup: "<=\d+"}'),
    "one file, inverted": (one_map(240, 128, 20), '{disc: ">=64", cup: ">=192"}', r'{disc: "<=176", cup: "<=48"}'),
    "one file, exchanged": (one_map(0, 128, 255), '{disc: ">=192", cup: ">=64"}', r'{disc: ">=64", cup: ">=192"}'),
    "one file, no such greys": (one_map(0, 1, 2), '{disc: ">=64", cup: ">=192"}', "coding: labels"),
}


@pytest.mark.parametrize(("write", "coding", "line"), THRESHOLDS.values(), ids=THRESHOLDS)
def test_thresholds_that_the_masks_contradict(said, tmp_path, write, coding, line):
    data = Data(tmp_path, write, coding=coding, binary=coding[0] == '"')
    lines = said(data)
    assert 1 <= len(lines) <= 2
    for each in lines:
        assert "6 of 6 masks of" in each or "7 of 7 masks of" in each
        assert_mended(each, line, said.command)


def assert_mended(text, line, command):
    """Whether a message names the line of YAML to write, or the option to give where there is no YAML."""
    if command in ("predict", "score", "audit"):
        line = f"give --truth-coding '{line.removeprefix('coding: ')}"
        assert "YAML" not in text
    else:
        line = line if line.startswith("coding") else f"coding: {line}"
    assert re.search(line.replace("{", r"\{").replace("}", r"\}"), text), text


def smooth_map(place, number, masks):
    save(place / f"mask/{number}.png", cv2.GaussianBlur(coded(masks, 0, 128, 255), (3, 3), 0))


def smooth_colours(place, number, masks):
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[masks.sum(axis=0)]
    save(place / f"mask/{number}.png", cv2.GaussianBlur(colours, (3, 3), 0))


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (smooth_map, 'write `coding: {disc: ">=64", cup: ">=192"}`'),
        (
            smooth_colours,
            'export them without smooth borders and write `coding: {cup: "#00ff00", rim: "#ff0000", background: 0}`',
        ),
    ],
)
def test_the_line_for_smooth_masks_of_another_coding_reads_them(tmp_path, write, line):
    told = Lines()
    check(Data(tmp_path, write), told)
    assert sum(line in each for each in told.lines) == 2  # of train and of test
    assert all("7 of 7 masks" in each or "6 of 6 masks" in each for each in told.lines)


def test_thresholds_for_disc_and_cup_exchanged(said, tmp_path):
    data = Data(tmp_path, two_maps(CUP, DISC), coding='">=128"', binary=True)
    fix = "give the place of the discs first" if said.command in ("predict", "score", "audit") else "exchange the two"
    lines = said(data)
    assert lines
    assert all("show a disc inside its cup" in each and fix in each for each in lines)


@pytest.mark.parametrize(
    ("write", "coding"),
    [
        (two_maps(DISC, CUP), '">=128"'),
        (two_maps(lambda m: 255 - DISC(m), lambda m: 255 - CUP(m)), '"<=127"'),
        (one_map(0, 128, 255), '{disc: ">=64", cup: ">=192"}'),
        (one_map(255, 128, 0), "dofe"),
        (one_map(0, 1, 2), "labels"),
    ],
)
def test_of_sound_masks_nothing_is_said(said, tmp_path, write, coding):
    assert said(Data(tmp_path, write, coding=coding, binary=coding[0] == '"')) == []


@pytest.mark.parametrize("binary", [False, True])
def test_no_cup_at_all_is_one_warning(said, tmp_path, binary):
    write = two_maps(lambda m: 255 * m[0], lambda m: 0 * m[0]) if binary else one_map(255, 128, 128)
    data = Data(tmp_path, write, binary=binary, coding="" if binary else "dofe")
    lines = said(data)
    assert lines
    assert len(lines) == len({each.partition(" masks of ")[2].partition(" ")[0] for each in lines})
    for each in lines:
        assert ("6 of 6 masks of" in each or "7 of 7 masks of" in each) and "have no cup" in each
        assert not each.startswith("error")


def test_no_disc_at_all_is_one_error(said, tmp_path):
    lines = said(Data(tmp_path, one_map(255, 255, 255), coding="dofe"))
    assert 1 <= len(lines) <= 2
    assert all("have no disc; first 0.png" in each for each in lines)


def test_one_file_of_another_kind_is_named(said, tmp_path):
    def write(place, number, masks):
        for name, mask in zip(("od", "oc"), masks, strict=True):
            save(place / f"{name}/{number}.png", np.uint8(255) * (mask != (number == 3 and name == "oc")))

    lines = said(Data(tmp_path, write, binary=True))
    named = [each for each in lines if "od/3.png: shows 0 inside 255" in each]
    assert named
    assert said.command in ("check", "predict") or named == lines  # predict tells the hole of its row too


def test_a_cup_that_leaves_its_disc_is_one_line(said, tmp_path):
    def write(place, number, masks):
        save(place / f"od/{number}.png", np.uint8(255) * masks[0])
        save(place / f"oc/{number}.png", np.uint8(255) * np.roll(masks[1], 16, axis=0))

    lines = [each for each in said(Data(tmp_path, write, binary=True)) if "stray" not in each]
    assert lines
    told = ["of the cup lie outside the disc, which is extended by them" in each for each in lines]
    assert any(told)
    assert said.command == "check" or all(told)  # check tells too that the cup touches the background
    assert said.command == "check" or all("6 of 6 masks of" in each or "7 of 7 masks of" in each for each in lines)


def test_a_hole_is_told(said, tmp_path):
    def write(place, number, masks):
        rows, columns = np.nonzero(masks[1])
        masks[:, int(rows.mean()), int(columns.mean())] = False
        save(place / f"mask/{number}.png", coded(masks, 255, 128, 0))

    lines = said(Data(tmp_path, write, coding="dofe"))
    assert lines
    if said.command == "predict":
        assert "6 of 6 photographs: the true mask has stray parts" in lines[0]
    else:
        assert all("hole" in each for each in lines)


@pytest.mark.parametrize("said", [check, train, evaluate, atlas, predict], indirect=True)  # those that see photographs
def test_pictures_that_are_turned_are_one_warning(said, tmp_path):
    lines = said(
        Data(
            tmp_path,
            lambda place, number, masks: save(place / f"mask/{number}.png", coded(masks[:, ::-1, ::-1], 255, 128, 0)),
            coding="dofe",
        )
    )
    turned = [each for each in lines if "better turned by 180 degrees" in each]
    assert turned and all("look whether they are mirrored or turned" in each for each in turned)
    assert not any(each.startswith("error") for each in lines)


def test_one_mask_under_several_names_is_one_warning():
    witness = Witness()
    for number in range(4):
        witness.look("a/test", Path(f"{number}.png"), lopsided(min(number, 2)))
    (oddity,) = witness.suspicion().oddities
    assert str(oddity) == (
        "1 of 4 masks of a/test are the mask of another case; first 3.png: the same mask as 2.png: "
        "one of them is of another eye"
    )


def test_stray_parts_are_one_line(said, tmp_path):
    def write(place, number, masks):
        masks[0, 2:5, 2:5] |= number < 4
        save(place / f"mask/{number}.png", coded(masks, 255, 128, 0))

    lines = said(Data(tmp_path, write, coding="dofe"))
    if said.command == "check":
        assert len(lines) == 8
        assert all("the disc has 2 components, the second of 9 pixels" in each for each in lines)
    elif said.command == "predict":
        assert len(lines) == 1
        assert "4 of 6 photographs: the true mask has stray parts" in lines[0]
    else:
        assert 1 <= len(lines) <= 2
        for each in lines:
            assert each.startswith("warning: 4 of ")
            assert "have stray parts or holes; first " in each
            assert "0.png: the disc has 2 components" in each


@pytest.mark.parametrize("said", [check, train, evaluate, atlas, predict], indirect=True)  # those that see photographs
@pytest.mark.parametrize("clear", [True, False])
def test_masks_on_the_stored_pixels_of_photographs_that_exif_turns(said, tmp_path, clear):
    def turn(path: Path, photograph):
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels = photograph if clear else np.random.default_rng(int(path.stem)).integers(0, 255, photograph.shape)
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path, exif=exif)

    lines = said(Data(tmp_path, one_map(255, 128, 0), coding="dofe", exif=turn))
    assert 1 <= len(lines) <= 2 or (said.command == "check" and not clear)
    for each in lines:
        if clear:
            assert "with this fault: fits its photograph as it is stored" in each
        else:
            assert "turned by EXIF orientation 6" in each
            assert said.command == "check" or "masks of" in each


@pytest.mark.parametrize("turn", ["mirrored left to right", "turned by 180 degrees", "with rows and columns exchanged"])
def test_nifti_truth_turned_against_pictures(said, tmp_path, turn):
    def write(place: Path, number, masks):
        (place / "mask").mkdir(exist_ok=True)
        labels = coded(TURNS[turn](masks), 0, 1, 2)
        image = nibabel.Nifti1Image(labels.T[..., None], np.diag([-1, -1, 1, 1]))
        nibabel.save(image, place / f"mask/{number}.nii.gz")

    lines = said(Data(tmp_path, write, coding="labels", suffix=".nii.gz"))
    assert 1 <= len(lines) <= 2
    assert all("lie on the bright part" in each or "agree with the others better" in each for each in lines)


def blurred(mask):
    return cv2.GaussianBlur(np.uint8(255) * mask, (0, 0), 2)


@pytest.mark.parametrize(
    ("write", "binary", "text"),
    [
        (two_maps(lambda m: blurred(m[0]), lambda m: blurred(m[1])), True, '">=128"'),
        (one_map(255, 90, 0), False, "coding: {cup: 0, rim: 90, background: 255}"),
    ],
)
def test_many_files_with_one_cause_are_one_line(tmp_path, write, binary, text):
    told = Lines()
    check(Data(tmp_path, write, binary=binary), told)
    assert len(told.lines) == 2
    assert all(text in each for each in told.lines)


def lines_of(printed: str, start: str) -> Sequence[str]:
    return [line for line in printed.splitlines() if line.startswith(start)]


def test_strict_stops_training_before_the_first_epoch_at_every_start(command, tmp_path):
    data = Data(tmp_path, one_map(255, 128, 128), coding="dofe")
    arguments = ("train", "--holdout", "b", "--data", data.path, "--config", "tiny", "--set", "train.epochs=1")
    arguments += ("--set", "train.selection=last")
    for _ in range(2):
        shown = command(*arguments, "--strict", code=3)
        assert len(lines_of(shown.err, "warning: 7 of 7 masks of a/train have no cup; first")) == 1
        assert "error: --strict, and 2 warnings" in shown.err
    assert not list(tmp_path.glob("runs/**/metrics.csv"))
    assert lines_of(command(*arguments).err, "warning: 7 of 7 masks")
    command(*arguments, "--strict", code=3)


def test_strict_evaluation_ends_with_3_whenever_it_is_asked(command, tmp_path):
    data = Data(tmp_path, one_map(255, 128, 128), coding="dofe")
    arguments = ("train", "--holdout", "a", "--data", data.path, "--config", "tiny", "--set", "train.epochs=1")
    command(*arguments, "--set", "train.selection=last")
    for _ in range(2):
        shown = command("evaluate", "--strict", code=3)
        assert len(lines_of(shown.err, "warning: 6 of 6 masks of a/test have no cup; first")) == 1
