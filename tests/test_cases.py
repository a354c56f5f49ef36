"""The inputs of tests/cases, which trials found wanting: each must give what stands here, by the command line.

A script draws its input into a folder. What a stranger would see is asserted: the exit code, what is written, and the
words that name the cause and the mend.
"""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fundus_seg.config import load_config
from fundus_seg.data.io import read_mask, read_photograph
from fundus_seg.data.names import name_of
from fundus_seg.errors import ConfigError, DataError

CASES = Path(__file__).parent / "cases"


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A function that draws the input of a script and gives its folder."""

    def draw(script, folder="case"):
        monkeypatch.syspath_prepend(str(CASES))
        monkeypatch.setattr(sys, "argv", [script, str(tmp_path / folder)])
        runpy.run_path(str(CASES / f"{script}.py"))
        return tmp_path / folder

    return draw


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A function that runs a shell script with `fundus-seg` on the path."""

    def run(script, *arguments):
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        return subprocess.run(
            ["sh", str(CASES / script), *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def rows(folder):
    return pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)


REFUSED = {
    "15rgb16.png": "more than 8 bits a channel",
    "16rgba16.png": "more than 8 bits a channel",
    "35thumbnail_page.tif": "2 pages are more than one image",
    "39frames.png": "2 frames are more than one image",
}
TURNED = {"27exif_orientation_twice.jpg", "28exif_orientation_text.jpg", "29exif_cut.jpg", "26exif6_zero_rational.jpg"}
"""Files whose broken EXIF may be obeyed or not: their eye is upright, or turned by a quarter."""
OTHER = {"37onebit.png", "40tiny20.png", "41one_pixel.png", "42strip.png", "43big2124x2056.png", "44black.png"}
"""Files that do not show the same eye in the same size and colours."""


class TestPhotographs:
    def test_each_file_shows_the_same_eye_or_is_refused_with_a_mend(self, case):
        folder = case("c01_photographs")
        plain = read_photograph(folder / "00plain.png").pixels.astype(float)
        for path in sorted(folder.iterdir()):
            if path.name in REFUSED:
                with pytest.raises(DataError, match=REFUSED[path.name]):
                    read_photograph(path)
                continue
            pixels = read_photograph(path).pixels.astype(float)
            if path.name in OTHER:
                continue
            if "alpha" in path.name:  # outside the circle lies black
                rim = np.hypot(*(np.mgrid[:320, :320] - 160)) < 159
                pixels, expected = pixels * rim[..., None], plain * rim[..., None]
            else:
                expected = plain
            if "grey" in path.name:
                expected = expected @ [0.299, 0.587, 0.114]
                pixels = pixels.mean(axis=2)
            turns = [pixels, np.rot90(pixels)] if path.name in TURNED else [pixels]
            assert min(np.abs(each - expected).mean() for each in turns) < 8, path.name

    def test_predict_does_the_others_and_names_those_refused(self, case, checkpoint, command, tmp_path):
        folder = case("c01_photographs")
        printed = command("predict", checkpoint, folder, "--out", "out")
        done = rows(tmp_path / "out")
        assert len(done) == len(list(folder.iterdir()))
        assert {Path(path).name for path in done.photograph[done.warning == "unreadable"]} == REFUSED.keys()
        assert all(name in printed.err and text in printed.err for name, text in REFUSED.items())
        assert not re.search(r"\S+\.py:\d+", printed.err)  # a raw warning of a library

    def test_grey_photographs_have_one_count_of_pixels(self, case, checkpoint, command, tmp_path):
        command("predict", checkpoint, case("c22_grey_photographs"), "--out", "out")
        for _, row in rows(tmp_path / "out").iterrows():
            disc, cup = read_mask(tmp_path / "out/masks" / Path(row.photograph).name)
            assert (disc.sum(), cup.sum()) == (int(row.disc_pixels), int(row.cup_pixels))
            assert ("cup_outside_disc" in row.warning) == (int(row.cup_pixels_outside_disc) > 0)

    def test_sizes_from_1_to_2124_pixels_are_sound(self, case, command):
        assert "0 errors" in command("data", "check", case("c14_small_and_odd_sizes")).out


CODINGS = {
    "inverted": "coding: {cup: 255, rim: 128, background: 0}",
    "labels012": "coding: labels",
    "labels012_test_only": "coding: labels",
    "labels021": "coding: {cup: 1, rim: 2, background: 0}",
    "labels0255_disc": 'masks: {disc: "DISCS/{name}.png", cup: "CUPS/{name}.png"}',
    "black_disc": 'masks: {disc: "DISCS/{name}.png", cup: "CUPS/{name}.png"}',
    "black_disc_smoothed": 'masks: {disc: "DISCS/{name}.png", cup: "CUPS/{name}.png"}',
    "white_disc_smoothed": 'masks: {disc: "DISCS/{name}.png", cup: "CUPS/{name}.png"}',
    "dofe_smoothed": '{disc: "<=200", cup: "<=50"}',
    "dofe_jpeg": '{disc: "<=200", cup: "<=50"}',
    "rim_and_cup_swapped": "coding: {cup: 128, rim: 0, background: 255}",
    "two_thirds": "coding: {cup: 170, rim: 85, background: 0}",
    "colour_map": 'coding: {cup: "#fde725", rim: "#21918c", background: "#440154"}',
    "palette": 'coding: {cup: "#008000", rim: "#800000", background: 0}',
}
"""What the masks of the first domain are, and the line that the error must give."""
LABELS = "cup 2, rim 1, background 0"
STRAY = {
    "one_stray": "2 components, the second of 9 pixels",
    "two_discs": "2 components, the second of 1600 pixels",
    "one_pixel_disc": "only 2 pixels",
    "cup_at_edge": "the cup touches the background",
}
"""Sound codings with masks that deserve a look, and the words of the warning."""


class TestCodings:
    def test_check_train_and_predict_refuse_and_give_the_line_to_write(self, case, checkpoint, command):
        roots = case("c02_mask_codings")
        assert {path.name for path in roots.iterdir()} == set(CODINGS) | set(STRAY)
        for name, line in CODINGS.items():
            checked = command("data", "check", roots / name, "--json", code=1)
            problems = json.loads(checked.out)["problems"]
            assert all(each["severity"] == "error" and line in each["problem"] for each in problems), name
            holdout = "B" if name != "labels012_test_only" else "A"
            trained = ("train", "--config", "tiny", "--data", roots / name, "--holdout", holdout, "--out", "runs")
            if holdout == "B":
                assert line in command(*trained, code=1).err, name
            # The command line has no file to write in: what can be recognised is used, and said.
            rois = roots / name / "Domain1/test/ROIs"
            predicted = ("predict", checkpoint, rois / "image", "--truth", rois / "mask", "--out", f"out/{name}")
            if line.startswith("coding:"):
                values = line.removeprefix("coding: ").strip("{}").replace(":", "").replace('"', "")
                recognised = LABELS if values == "labels" else values
                assert f"as recognised: {recognised}" in command(*predicted).err, name
            else:
                refused = command(*predicted, code=1).err
                assert "--truth-coding" in refused or line in refused, name
        assert not Path("runs").exists()

    def test_check_warns_of_stray_truth_and_leaves_it_as_it_is(self, case, command):
        roots = case("c02_mask_codings")
        for name, words in STRAY.items():
            found = json.loads(command("data", "check", roots / name, "--json").out)["problems"]
            assert found and all(each["severity"] == "warning" for each in found), name
            assert any(words in each["problem"] for each in found), name


class TestNames:
    SKIPPED = frozenset({"Thumbs.db", ".DS_Store", "desktop.ini", "inner.png", ".hidden.png", "._a.png", "..x.png"})

    def test_awkward_names_are_predicted_each_with_a_mask_of_its_own(self, case, checkpoint, command, tmp_path):
        folder = case("c03_names_predict")
        expected = sorted(name_of(path) for path in folder.iterdir() if path.name not in self.SKIPPED)
        printed = command("predict", checkpoint, folder, "--out", "out", "--overlay")
        done = rows(tmp_path / "out")
        assert len(done) == len(expected) == len({*expected})
        assert sorted(name_of(path) for path in (tmp_path / "out/masks").iterdir()) == expected
        assert "hidden" in printed.err and "a folder" in printed.err
        assert "\x1b" not in printed.err + printed.out

    @pytest.mark.parametrize("folder", ["case", "case_cjk"])
    def test_names_near_the_limit_of_the_file_system_are_done_or_named(
        self, case, checkpoint, command, tmp_path, folder
    ):
        case("c09_long_names")
        command("predict", checkpoint, tmp_path / folder, "--out", "out")
        assert len(rows(tmp_path / "out")) == len(list((tmp_path / folder).iterdir()))

    def test_upper_case_suffixes_are_taken(self, case, command):
        roots = case("c05_upper_case")
        for kind in ("all", "some"):
            counts = json.loads(command("data", "check", roots / kind, "--json").out)
            assert [each["cases"] for each in counts["splits"]] == [6] * 8
            assert counts["problems"] == []

    def test_other_suffixes_are_taken_or_counted(self, case, checkpoint, command, tmp_path):
        folder = case("c20_other_suffixes")
        command("predict", checkpoint, folder, "--out", "out", "--format", "nifti")
        printed = command("predict", checkpoint, folder, "--out", "strict", "--strict", code=3)
        done = {Path(name).name for name in rows(tmp_path / "out").photograph}
        assert done == {"seen.png", "saved_by_browser.jfif", "b.jpe", "f.dib", "photo.nii.gz"}
        assert "4 files" in printed.err and "c.webp" in printed.err
        assert (tmp_path / "out/masks/photo.nii.gz").is_file()

    def test_messages_and_json_keep_names_whole(self, case, command):
        root = case("c21_messages")
        printed = command("data", "check", root, code=1)
        found = json.loads(command("data", "check", root, "--json", code=1).out)["problems"]
        problems = [each for each in found if each["severity"] == "error"]  # their masks are copies, which is a warning
        assert {Path(each["file"]).name for each in problems} == {"scan_10:100:20.png", "od: left.png"}
        assert all(each["problem"].startswith("not an image") for each in problems)
        assert "scan_10:100:20.png: not an image" in printed.out

    def test_case_names_come_back_from_the_records_as_they_are(self, case, command, tmp_path):
        root = case("c13_case_names_root")
        train = ("train", "--config", "tiny", "--set", "train.epochs=1", "--data", root, "--holdout", "A")
        command(*train, "--out", "runs")
        command("evaluate", "runs", "--metrics", "dsc", "--overlays", "1")
        (record,) = (tmp_path / "runs").rglob("evaluations/*.csv")
        names = {name_of(path) for path in (root / "Domain1/test/ROIs/image").iterdir()}
        assert set(pd.read_csv(record, dtype=str, keep_default_na=False)["case"]) == names


SAME = ["png", "itk_2d", "itk_one_slice", "nib_no_affine", "nib_lps", "nib_4d_singletons", "oblique"]
SAME += ["float64", "int32", "float_scaled"]
AWRY = {
    "nib_eye_transposed": "turned by 180 degrees",
    "nib_eye_transposed_3d": "turned by 180 degrees",
    "nib_eye_rows_first": "rows and columns exchanged",
    "nib_ras_flipped_y": "mirrored left to right",
    "first_axis_single": "more than one slice",
    "one_hot": "more than one slice",
    "suffix_pred": "{name}_pred.*",
    "suffix_0000": "{name}_0000.*",
    "png_suffix": "{name}_mask.*",
}
"""Ways to write predictions whose header or name does not fit the truth, and what the error must name."""


class TestScore:
    def test_nifti_scores_100_percent_or_the_turn_is_named(self, case, command, tmp_path):
        folder = case("c07_nifti_predictions")
        assert {path.name for path in folder.iterdir()} == {*SAME, *AWRY, "truth"}

        def score(way, **exit_code):
            return command(
                *("score", "--pred", folder / way, "--truth", folder / "truth", "--metrics", "dsc"),
                *("--out", f"scores/{way}", "--format", "csv"),
                **exit_code,
            )

        for way in SAME:
            assert re.findall(r"^dsc,%,.*,unknown,(\d+),NA", score(way).out, re.MULTILINE) == ["100", "100"], way
        for way, words in AWRY.items():
            assert words in score(way, code=1).err, way
            assert not (tmp_path / "scores" / way).exists()

    def test_rings_missed_cases_and_other_sizes(self, case, command, tmp_path):
        folder = case("c15_ring_and_empty")

        def score(*preds, truth="truth", code=0):
            options = [part for each in preds for part in ("--pred", folder / each)]
            out = "-".join((*preds, truth))
            printed = command("score", *options, "--truth", folder / truth, "--out", out, code=code)
            return printed, tmp_path / out

        _, ring = score("ring", "cup")
        assert _dice(ring) == [1.0] * 12  # the cup fills the rings
        printed, missed = score("missed")
        assert _dice(missed) == [0.0, 0.0] + [1.0] * 10
        lows_and_highs = re.findall(r"\[(-?[\d.]+), (-?[\d.]+)\]", printed.out)
        assert lows_and_highs and all(0 <= float(low) <= float(high) <= 100 for low, high in lows_and_highs)
        printed, _ = score("othersize", code=1)
        assert "256x200 pixels, but its truth has 256x256" in printed.err
        printed, _ = score("all_empty", code=1)
        assert "--pred-coding" in printed.err
        printed, _ = score("truth", truth="truth_empty")
        assert "1 excluded of 6" in printed.out


def _dice(folder):
    (record,) = folder.rglob("evaluations/*.csv")
    return sorted(pd.read_csv(record)["dsc"])


SETTINGS = {
    "octal": {"train.epochs": 10, "seed": 7},
    "null_byte": "special characters are not allowed",
    "utf16": "not a text file",
    "latin1": "not a text file",
    "tabs": ":2",
    "twice": "train: stands here a second time",
    "twice_inside": "train.epochs: stands here a second time",
    "two_documents": "another document",
    "nbsp": "unknown setting",
    "smart_quotes": "did you mean 'conv'?",
    "sexagesimal": "valid integer",
    "decimal_comma": "optim.lr",
    "bool_threads": "valid integer",
    "underscore": "valid integer",
    "string_epochs": "valid integer",
    "float_epochs": "valid integer",
    "null_section": "train is a section",
    "tag": "train is a section",
    "merge": "unknown setting 'a'",
    "betas_text": "optim.betas",
    "preset_number": "valid string",
    "holdout_no": {"holdout": "no"},
    "plain": {"train.epochs": 1},
    "bom": {"train.epochs": 1},
    "crlf": {"train.epochs": 1},
    "empty": {},
    "comment_only": {},
}
"""Either what a settings file sets, or words of its error."""


class TestSettings:
    def test_settings_files_are_read_in_yaml_1_2_s_sense_or_refused_by_line(self, case):
        folder = case("c08_yaml")
        assert {path.stem for path in folder.glob("*.yaml")} == set(SETTINGS)
        for name, expected in SETTINGS.items():
            path = str(folder / f"{name}.yaml")
            if isinstance(expected, str):
                with pytest.raises(ConfigError) as refused:
                    load_config(path, arguments={"holdout": "A"})
                assert expected in str(refused.value), name
                continue
            config = load_config(path, arguments={} if "holdout" in expected else {"holdout": "A"})
            for setting, value in expected.items():
                assert functools.reduce(getattr, setting.split("."), config) == value, name

    def test_domain_files_of_windows_editors_are_read_or_refused(self, case, command):
        folder = case("c08_yaml")
        for name in ("domains", "domains_bom_crlf"):
            found = json.loads(command("data", "check", folder / f"{name}.yml", "--json").out)
            assert [each["domain"] for each in found["splits"]] == ["no", "no", "yes", "yes", "on", "on"]
        assert ":2:" in command("data", "check", folder / "domains_tabs.yml", code=1).err
        assert "not a text file" in command("data", "check", folder / "domains_utf16.yml", code=1).err

    def test_a_section_that_stands_twice_is_named_and_a_leading_zero_is_decimal(self, case):
        folder = case("c23_settings_twice")
        with pytest.raises(ConfigError, match=r"twice.yaml:7: train: stands here a second time"):
            load_config(str(folder / "twice.yaml"))
        config = load_config(str(folder / "zero.yaml"))
        assert (config.seed, config.train.epochs) == (10, 40)


class TestRuns:
    @pytest.mark.slow
    def test_slurm_s_variables_change_nothing(self, shell, tmp_path):
        done = shell("c16_slurm_ntasks.sh", tmp_path / "out")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert [path.name for path in (tmp_path / "out/runs").rglob("best.ckpt")] == ["best.ckpt"]

    @pytest.mark.slow
    def test_a_run_behind_a_link_stands_in_the_table(self, shell, tmp_path):
        done = shell("c17_linked_runs.sh", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert re.search(r"^DSC \[%\] +disc \(OD\) +A ", done.stdout, re.MULTILINE), done.stdout

    def test_a_second_predict_keeps_what_stands_and_says_what_it_did(self, shell, checkpoint, tmp_path):
        done = shell("c19_predict_twice.sh", checkpoint, tmp_path / "out")
        assert "0 of 2 photographs are done already" in done.stderr
        assert "done again, since they or their files have changed" in done.stderr
        assert re.search(r"left out: 1 photograph, damaged .*: .*eye1\.png", done.stderr)
        table = rows(tmp_path / "out/out").set_index("photograph")
        assert {Path(name).name: status == "declined" for name, status in table.status.items()} == {
            "eye1.png": True,
            "eye2.png": False,
            "eye3.png": False,
        }
        assert sorted(path.name for path in (tmp_path / "out/out/masks").iterdir()) == ["eye2.png", "eye3.png"]
