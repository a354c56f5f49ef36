"""Names that people's files have: all of them are found, matched and scored, or one line says why not."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from drawn_masks import coded, eye, pairs_of, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_runs import Lines
from small_runs import settings as run_settings

from fundus_seg.data import listing, open_root
from fundus_seg.data.check import check_root
from fundus_seg.data.coding import LABELS
from fundus_seg.data.files import Pattern
from fundus_seg.data.io import read_image, read_mask, write_mask
from fundus_seg.data.mask_files import find_masks, pair_masks
from fundus_seg.data.names import LONGEST, by_name, file_name, key, matched, name_of, stem
from fundus_seg.data.orientation import TURNS
from fundus_seg.errors import DataError, Problems
from fundus_seg.evaluation.external import score_masks
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.training import train

COMPOSED, APART = "\u00e9cole", "e\u0301cole"
LATIN = os.fsdecode(b"\xe9cole")
"""The same word in the bytes of an old Windows."""


def photograph(path, form=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (90, 60, 30)).save(path, format=form)


def names(files):
    return [path.name for path in files]


def reasons(skipped):
    return {each.path.name: each.reason for each in skipped}


def told(skipped):
    lines = Lines()
    listing.tell(skipped, lines)
    return lines.lines


class TestFolders:
    def test_every_suffix_of_a_readable_photograph_is_taken(self, tmp_path):
        forms = {"a.PNG": "PNG", "b.jfif": "JPEG", "c.JPE": "JPEG", "d.dib": "DIB", "e.Tiff": "TIFF", "f.jpeg": "JPEG"}
        for name, form in forms.items():
            photograph(tmp_path / name, form)
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 6, 1), np.uint8), np.eye(4)), tmp_path / "g.NII.GZ")
        found = listing.photographs([tmp_path])
        assert names(found.files) == [*forms, "g.NII.GZ"]
        assert found.skipped == ()
        assert list(by_name(found.files, "photograph", Problems())) == list("abcdefg")
        assert all(read_image(path).shape == (6, 8, 3) for path in found.files)

    def test_what_is_left_out_is_counted_with_its_reason(self, tmp_path):
        photograph(tmp_path / "a.png")
        photograph(tmp_path / "._a.png")
        photograph(tmp_path / "..b.png")
        photograph(tmp_path / "c.webp", "WEBP")
        photograph(tmp_path / "no_suffix", "PNG")
        photograph(tmp_path / "more/inner/d.png")
        photograph(tmp_path / ".trash/e.png")
        (tmp_path / "folder.png").mkdir()
        os.mkfifo(tmp_path / "fifo.png")
        for clutter in ("Thumbs.db", ".DS_Store", "desktop.ini", "dataset.json", "README", "grades.xlsx"):
            (tmp_path / clutter).write_bytes(b"x")
        found = listing.photographs([tmp_path])
        assert names(found.files) == ["a.png"]
        assert reasons(found.skipped) == {
            "._a.png": listing.HIDDEN,
            "..b.png": listing.HIDDEN,
            "c.webp": "without a suffix of a photograph",
            "no_suffix": "without a suffix of a photograph",
            "d.png": listing.NESTED,
            "folder.png": listing.FOLDER,
            "fifo.png": listing.SPECIAL,
        }
        lines = told(found.skipped)
        assert (
            f"left out: 1 file, in a subfolder: {tmp_path}/more/inner/d.png; give --recursive, or the subfolder"
            in lines
        )
        assert len(lines) == 5

    def test_subfolders_and_links_where_asked(self, tmp_path):
        for place in (
            "photos/a.png",
            "photos/one/b.PNG",
            "photos/one/two/c.png",
            "elsewhere/d.png",
            "photos/out/e.png",
        ):
            photograph(tmp_path / place)
        (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos/one/loop").symlink_to(tmp_path / "photos")
        (tmp_path / "photos/f.png").symlink_to(tmp_path / "elsewhere/d.png")
        (tmp_path / "photos/gone.png").symlink_to(tmp_path / "nowhere.png")
        found = listing.photographs([tmp_path / "photos"], recursive=True, written=tmp_path / "photos/out")
        assert sorted(names(found.files)) == ["a.png", "b.PNG", "c.png", "d.png", "f.png", "gone.png"]
        assert found.skipped == ()
        flat = listing.photographs([tmp_path / "photos"], written=tmp_path / "photos/out")
        assert names(flat.files) == ["a.png", "f.png", "gone.png"]
        assert sorted(names(each.path for each in flat.skipped)) == ["b.PNG", "c.png", "d.png"]

    def test_given_files_are_taken_whatever_their_suffix_each_once(self, tmp_path):
        photograph(tmp_path / "eye", "PNG")
        photograph(tmp_path / "a.png")
        found = listing.photographs([tmp_path / "eye", tmp_path, tmp_path / "a.png"])
        assert names(found.files) == ["eye", "a.png"]

    def test_folders_without_a_photograph_say_what_they_hold(self, tmp_path):
        for number in range(51):
            photograph(tmp_path / f"visit{number}/eye.jpg")
        with pytest.raises(DataError, match=r"no photograph in it \(.*\); 51 in a subfolder \(give --recursive"):
            listing.photographs([tmp_path])
        os.mkfifo(tmp_path / "fifo.png")
        with pytest.raises(DataError, match=r"fifo\.png: not a regular file"):
            listing.photographs([tmp_path / "fifo.png"])
        with pytest.raises(DataError, match="no such photograph or folder"):
            listing.photographs([tmp_path / "gone.png"])


class TestNames:
    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("photo.nii.gz", "photo"),
            ("photo.NII.GZ", "photo"),
            ("a.b.png", "a.b"),
            ("x.png.png", "x.png"),
            ("eye", "eye"),
            ("trailing .png", "trailing "),
            ("od: left.png", "od: left"),
            (f"{APART}.png", COMPOSED),
            (f"{LATIN}.png", "\\xe9cole"),
        ],
    )
    def test_the_name_of_a_file(self, file, name):
        assert name_of(Path(file)) == name

    @given(st.binary(min_size=1, max_size=200))
    def test_any_bytes_give_a_name_that_can_be_written(self, content):
        name = os.fsdecode(content)
        assert unicodedata.is_normalized("NFC", key(name))
        assert key(key(name)) == key(name)
        assert len(file_name(key(stem(name)), ".nii.gz", "099-dsc99.9-").encode()) <= LONGEST

    @pytest.mark.parametrize("letter", ["x", "\u773c", "\u00e9", "\U0001f441"])
    @pytest.mark.parametrize("size", [1, 200, 239, 248, 251, 400])
    def test_long_names_are_cut_at_a_character_and_still_matched(self, letter, size):
        name = (letter * size).encode()[:size].decode(errors="ignore") or letter
        made = file_name(name, ".nii.gz")
        assert len(made.encode()) <= LONGEST
        assert (stem(made) == name) == (len(name.encode()) + 7 <= LONGEST)
        assert matched([name, "other"], [stem(made), "more"]) == {name: stem(made)}

    def test_two_files_of_one_name_are_refused_in_all_their_spellings(self):
        clashes = Problems()
        files = [Path(f"{COMPOSED}.png"), Path(f"{APART}.png"), Path(f"{APART}.jpg"), Path("a.png")]
        assert by_name(files, "photograph", clashes) == {"a": Path("a.png")}
        assert [problem.path for problem in clashes.found] == files[:3]
        assert r"('e\u0301cole.png', not '\xe9cole.png')" in clashes.found[0].text  # a screen shows them alike
        assert r"\u0301" not in clashes.found[1].text  # their suffixes differ

    def test_two_masks_whose_names_look_alike_are_told_apart(self, tmp_path):
        for name in (COMPOSED, APART):
            save(tmp_path / f"{name}.png", coded(eye(0), 255, 128, 0))
        with pytest.raises(DataError, match="a second mask of") as caught:
            find_masks([str(tmp_path)])
        assert r"e\u0301cole.png" in str(caught.value)

    def test_names_that_differ_in_case_alone_are_told(self, truth, tmp_path):
        for path in sorted(truth.iterdir()):
            save(tmp_path / f"pred/{path.name.upper()}", np.asarray(Image.open(path)))
        with pytest.raises(DataError, match=r"'EYE0' and 'eye0' differ in upper and lower case, .* rename one side"):
            pairs_of(tmp_path / "pred", truth)
        (tmp_path / "pred/EYE1.PNG").rename(tmp_path / "pred/eye1.png")
        told = Lines()
        assert pair_masks([str(tmp_path / "pred")], [str(truth)], progress=told).names == ("eye1",)
        assert any("left out: 2 predictions" in line and "'EYE0' and 'eye0' differ" in line for line in told.lines)


class TestRoots:
    def test_upper_case_suffixes_are_the_same_cases(self, draw_root):
        root = draw_root(train=6)
        cases = {case.name for case in open_root(root).cases("A", "train")}
        for path in sorted((root / "Domain1/train/ROIs/image").iterdir())[::2]:
            path.rename(path.with_suffix(".PNG"))
        for path in sorted((root / "Domain1/train/ROIs/mask").iterdir())[::3]:
            path.rename(path.with_suffix(".Png"))
        opened = open_root(root)
        assert {case.name for case in opened.cases("A", "train")} == cases
        assert opened.skipped == ()

    def test_what_no_pattern_matches_is_told(self, draw_root):
        root = draw_root()
        image, mask = (root / "Domain1/train/ROIs" / kind for kind in ("image", "mask"))
        photograph(image / "late.jpg")
        photograph(image / "later.webp", "WEBP")
        photograph(image / "more/nested.png")
        photograph(image / "._Atrain0.png")
        save(mask / "late.tif", coded(eye(), 255, 128, 0))
        os.mkfifo(image / "fifo.png")
        (image / "Thumbs.db").write_bytes(b"x")
        (image / "folder.png").mkdir()
        photograph(root / "Domain5/train/ROIs/image/e.png")
        lines = Lines()
        opened = open_root(root, progress=lines)
        assert len(opened.cases("A", "train")) == 3
        assert reasons(opened.skipped) == {
            "late.jpg": "matched by no pattern",
            "later.webp": "matched by no pattern",
            "late.tif": "matched by no pattern",
            "nested.png": "in a subfolder that no pattern names",
            "._Atrain0.png": listing.HIDDEN,
            "fifo.png": listing.SPECIAL,
            "folder.png": listing.FOLDER,
            "Domain5": "a folder beside Domain1..4/{train,test}/ROIs/{image,mask}/*.png",
        }
        assert any(line.startswith("left out: 3 files, matched by no pattern: ") for line in lines.lines)

    def test_data_check_and_train_say_so(self, draw_root, command):
        root = draw_root()
        photograph(root / "Domain1/train/ROIs/image/late.jpg")
        line = "left out: 1 file, matched by no pattern: "
        checked = command("data", "check", root, "--json", code=1)  # eyes drawn so simply look like copies
        assert line in checked.err
        (late,) = json.loads(checked.out)["left_out"]
        assert late["file"].endswith("late.jpg")
        trained = command("train", "--holdout", "A", "--config", "tiny", "--data", root, "--set", "train.epochs=1")
        assert trained.err.count(line) == 1

    def test_two_masks_that_differ_in_case_are_refused(self, draw_root):
        root = draw_root()
        mask = root / "Domain1/train/ROIs/mask/Atrain0.png"
        (mask.with_suffix(".PNG")).write_bytes(mask.read_bytes())
        with pytest.raises(DataError, match=r"Atrain0\.png: a second mask of Atrain0 beside .*Atrain0\.PNG; leave one"):
            open_root(root).cases("A", "train")

    def test_awkward_names_are_trained_on_and_scored(self, draw_root, tmp_path):
        root = draw_root(test=8)
        spelled = [COMPOSED, LATIN, "new\nline", "[red]x", "od: left", "007", "b" * 249]
        for kind, accented in (("image", "e\u0301toile"), ("mask", "\u00e9toile")):
            files = sorted((root / "Domain1/test/ROIs" / kind).iterdir())
            for path, name in zip(files, [*spelled, accented], strict=True):
                path.rename(path.with_name(f"{name}.png"))
        run = train(run_settings(), open_root(root), tmp_path / "runs")
        scored = set(evaluate(run).cases["case"])
        assert scored == {COMPOSED, "\\xe9cole", "new\nline", "[red]x", "od: left", "007", "b" * 249, "\u00e9toile"}

    def test_folders_are_matched_as_names_are(self, tmp_path):
        photograph(tmp_path / f"{APART}/[left] eye/one.PNG")
        photograph(tmp_path / f"{APART}/[left] eye/two.png")
        expected = [("one", "one.PNG"), ("two", "two.png")]
        for text in (f"{COMPOSED}/[left] eye/*.png", f"{APART}/[[]left] eye/{{name}}.png", f"{COMPOSED}/* eye/*.png"):
            found = Pattern(tmp_path, text).find()
            assert [(name, path.name) for name, path in found.files] == expected, text

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("eye[12].png", ["eye1", "eye2"]),
            ("eye[!1].png", ["eye2", "eye3"]),
            ("eye[1-2].png", ["eye1", "eye2"]),
            ("eye?.png", ["eye1", "eye2", "eye3"]),
            ("{name}[1].png", ["eye"]),
            ("[z-a]{name}.png", []),
            ("e*.PNG", ["eye1", "eye2", "eye3"]),
        ],
    )
    def test_brackets_are_a_set_unless_names_have_them(self, tmp_path, text, expected):
        for number in (1, 2, 3):
            photograph(tmp_path / f"eye{number}.png")
        assert [name for name, _ in Pattern(tmp_path, text).find().files] == expected
        photograph(tmp_path / "odd/eye[1].png")
        photograph(tmp_path / "odd/eye1.png")
        assert [path.name for _, path in Pattern(tmp_path / "odd", "{name}[1].png").find().files] == ["eye[1].png"]

    def test_a_name_that_a_pattern_has_twice_is_the_same(self, tmp_path):
        for folder, file in (("a", "a"), ("a", "b"), (COMPOSED, APART)):
            photograph(tmp_path / folder / f"{file}_od.png")
        found = Pattern(tmp_path, "{name}/{name}_od.png").find()
        assert [name for name, _ in found.files] == ["a", COMPOSED]
        assert names(each.path for each in found.others) == ["b_od.png"]

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(name=st.binary(min_size=1, max_size=120))
    def test_any_name_is_found_by_its_pattern_and_in_its_folder(self, name, tmp_path_factory):
        folder = tmp_path_factory.mktemp("any")
        file = name.replace(b"/", b"").replace(b"\0", b"").lstrip(b".") or b"x"
        (folder / os.fsdecode(file + b".PNG")).write_bytes(b"x")
        ((found, path),) = Pattern(folder, "{name}.png").find().files
        assert found == name_of(path) == key(os.fsdecode(file))
        assert listing.photographs([folder]).files == (path,)
        found.encode()


class TestScore:
    def test_names_match_composed_apart_and_with_nii_gz(self, tmp_path):
        save(tmp_path / "truth" / f"{COMPOSED}.png", coded(eye(1), 255, 128, 0))
        save(tmp_path / "truth" / f"{LATIN}.PNG", coded(eye(2), 255, 128, 0))
        (tmp_path / "pred").mkdir()
        write_mask(tmp_path / "pred" / f"{APART}.nii.gz", eye(1), "nifti")
        write_mask(tmp_path / "pred" / "\\xe9cole.NII.GZ", eye(2), "nifti")
        pairs = pairs_of(tmp_path / "pred", tmp_path / "truth")
        assert pairs.names == ("\\xe9cole", COMPOSED)
        assert score_masks(pairs).cases["dsc"].tolist() == [1] * 4

    def test_files_beside_the_masks_are_told(self, truth):
        save(truth / "more/eye9.png", coded(eye(), 255, 128, 0))
        save(truth / "eye9.jpg", coded(eye(), 255, 128, 0))
        (truth / "dataset.json").write_text("{}")
        os.mkfifo(truth / "fifo.png")
        lines = Lines()
        assert list(find_masks([str(truth)], progress=lines)) == ["eye0", "eye1", "eye2"]
        assert [line.rpartition(": /")[0] for line in lines.lines] == [
            "left out: 1 file, without a suffix of a mask",
            "left out: 1 file, not a regular file",
            "left out: 1 file, in a subfolder",
        ]

    def test_what_the_patterns_of_both_sides_leave_over_is_told(self, tmp_path):
        for number in range(2):
            photograph(tmp_path / f"all/eye{number}_photo.jpg")
            for kind in ("pred", "true"):
                save(tmp_path / f"all/eye{number}_{kind}.{'PNG' if number else 'png'}", coded(eye(number), 255, 128, 0))
        lines = Lines()
        pairs = pairs_of(tmp_path / "all/{name}_pred.png", tmp_path / "all/{name}_true.png", progress=lines)
        assert pairs.names == ("eye0", "eye1")
        (line,) = [line for line in lines.lines if line.startswith("left out")]
        assert line.startswith(f"left out: 2 files, matched by no pattern: {tmp_path}/all/eye0_photo.jpg, ")

    @pytest.mark.parametrize(("before", "behind"), [("", "_pred"), ("", "_0000"), ("out_", ""), ("out_", "_seg.v2")])
    def test_the_pattern_that_would_match_is_offered_and_does(self, truth, tmp_path, before, behind):
        (tmp_path / "pred").mkdir()
        for number in range(3):
            write_mask(tmp_path / "pred" / f"{before}eye{number}{behind}.nii.gz", eye(number), "nifti")
        with pytest.raises(DataError, match="no name in common") as caught:
            pairs_of(tmp_path / "pred", truth)
        offered = str(caught.value).rpartition(", as ")[2]
        assert offered == f"{tmp_path}/pred/{before}{{name}}{behind}.*"
        assert pairs_of(offered, truth).names == ("eye0", "eye1", "eye2")

    def test_files_that_cannot_be_read_are_the_reason_not_their_coding(self, truth, tmp_path):
        (tmp_path / "pred").mkdir()
        for number in range(3):
            volume = np.stack([coded(eye(number), 0, 1, 2)] * 3)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "pred" / f"eye{number}.nii.gz")
        with pytest.raises(DataError) as caught:
            pairs_of(tmp_path / "pred", truth)
        assert "coding" not in str(caught.value)
        assert [problem.path.name for problem in caught.value.problems] == [
            f"eye{number}.nii.gz" for number in range(3)
        ]
        assert all("3x40x40 voxels are more than one slice" in str(problem) for problem in caught.value.problems)
        save(tmp_path / "pred2/eye0.png", np.zeros((40, 40), np.uint8))
        save(tmp_path / "pred2/eye1.png", np.zeros((40, 40), np.uint8))
        (tmp_path / "pred2/eye2.png").write_bytes(b"no picture")
        with pytest.raises(DataError) as caught:
            pairs_of(tmp_path / "pred2", truth)
        unread, coding = map(str, caught.value.problems)
        assert "eye2.png: not an image" in unread
        assert "coding" in coding


def lopsided(seed, shape=(40, 50)):
    """Masks on a frame that is not square, far from its middle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    top, left = 14 + seed, 20 - seed
    disc = np.hypot((rows - top) / 11, (columns - left) / 9) < 1
    cup = np.hypot((rows - top + 3) / 5, (columns - left - 2) / 3) < 1
    return np.stack([disc, cup & disc])


class TestOrientation:
    @pytest.mark.parametrize("turn", list(TURNS))
    @pytest.mark.parametrize("side", ["pred", "truth"])
    def test_one_other_way_that_fits_is_named(self, tmp_path, turn, side):
        other = "truth" if side == "pred" else "pred"
        (tmp_path / side).mkdir()
        for number in range(4):
            save(tmp_path / other / f"eye{number}.png", coded(lopsided(number), 0, 1, 2))
            # what lies so that `turn` would make it right
            way = {"turned by 90 degrees to the left": "turned by 90 degrees to the right"}
            back = way.get(turn, {value: name for name, value in way.items()}.get(turn, turn))
            write_mask(tmp_path / side / f"eye{number}.nii.gz", TURNS[back](lopsided(number)), "nifti")
        if turn == "as they are read":
            assert score_masks(pairs_of(tmp_path / "pred", tmp_path / "truth")).cases["dsc"].tolist() == [1] * 8
            return
        with pytest.raises(DataError, match=rf"{side}: masks agree .* better {turn} \(mean Dice 100\.0\)"):
            pairs_of(tmp_path / "pred", tmp_path / "truth")

    def test_headers_that_turn_one_side_only_are_named_though_both_are_nifti(self, tmp_path):
        for side, step in (("pred", -1.0), ("truth", 1.0)):
            (tmp_path / side).mkdir()
            for number in range(6):
                labels = coded(lopsided(number), 0, 1, 2).T[..., None]
                affine = np.diag([step if number < 3 else -1.0, -1.0, 1.0, 1.0])
                nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / side / f"eye{number}.nii.gz")
        with pytest.raises(DataError, match=r"pred: masks agree .* better mirrored left to right .* of 3 cases"):
            pairs_of(tmp_path / "pred", tmp_path / "truth")

    @pytest.mark.parametrize("count", [1, 2, 6])
    def test_poor_predictions_are_scored_as_they_are(self, truth, tmp_path, count):
        rng = np.random.default_rng(0)
        (tmp_path / "pred").mkdir()
        for number in range(count):
            save(tmp_path / "true" / f"eye{number}.png", coded(eye(number), 255, 128, 0))
            moved = np.roll(eye(number), rng.integers(-4, 5, 2), axis=(1, 2))
            write_mask(tmp_path / "pred" / f"eye{number}.nii.gz", moved, "nifti")
        assert len(pairs_of(tmp_path / "pred", tmp_path / "true").names) == count

    @pytest.mark.parametrize("turned", [False, True])
    def test_data_check_tells_where_discs_lie_off_the_bright_part(self, tmp_path, turned):
        rng = np.random.default_rng(0)
        for number in range(6):
            masks = lopsided(number)
            grey = 60 + 80 * masks[0] + 60 * masks[1] + rng.normal(0, 8, masks.shape[1:])
            save(tmp_path / f"one/train/eye{number}.png", np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
            (tmp_path / "one/masks").mkdir(exist_ok=True)
            upright = masks[:, :, ::-1] if turned else masks
            write_mask(tmp_path / f"one/masks/eye{number}.nii.gz", upright, "nifti")
        files = '{images: "one/train/*.png", masks: "one/masks/{name}.nii.gz"}'
        (tmp_path / "d.yaml").write_text(f"domains: {{one: {{coding: labels, train: {files}}}}}")
        found = check_root(open_root(tmp_path / "d.yaml", least=1))
        said = [str(finding) for finding in found.findings if "bright part" in finding.text]
        assert len(said) == turned
        assert all("one/train: the masks lie on" in line and "mirrored left to right" in line for line in said)

    def test_labels_under_a_scaled_header_are_read(self, tmp_path):
        labels = coded(lopsided(0), 0, 1, 2)
        image = nibabel.Nifti1Image(labels.T.astype(float)[..., None], np.diag([-1.0, -1, 1, 1]))
        image.header.set_data_dtype(np.int16)
        nibabel.save(image, tmp_path / "scaled.nii.gz")
        np.testing.assert_array_equal(read_mask(tmp_path / "scaled.nii.gz", LABELS), lopsided(0))


class TestGeometry:
    @pytest.mark.parametrize("coloured", [False, True])
    @pytest.mark.parametrize("kind", ["none", "sform", "qform", "oblique"])
    @pytest.mark.parametrize("exchanged", [False, True])
    @pytest.mark.parametrize(("x", "y"), [(-1, -1), (1, -1), (-1, 1), (1, 1)])
    def test_a_mask_lies_where_its_photograph_lies(self, tmp_path, coloured, kind, exchanged, x, y):
        masks = lopsided(0)
        shown = coded(masks, 10, 20, 30).T[::-x, ::-y, None]
        affine = np.array([[0.01 * x, 0, 0, 5], [0, 0.02 * y, 0, -7], [0, 0, 3, 2], [0, 0, 0, 1]])
        if kind == "oblique":
            affine[:2, :2] = affine[:2, :2] @ [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
        if exchanged:
            shown, affine = shown.swapaxes(0, 1), affine[:, [1, 0, 2, 3]]
        voxels = np.repeat(shown[..., None, None], 3, axis=4) if coloured else shown
        photo = nibabel.Nifti1Image(voxels, affine)
        if kind in ("none", "qform"):
            photo.set_sform(None, 0)
            photo.set_qform(affine, 1 if kind == "qform" else 0)
        photo.header.set_xyzt_units("mm")
        nibabel.save(photo, tmp_path / "photo.nii.gz")
        photo = nibabel.load(tmp_path / "photo.nii.gz")
        seen = read_image(tmp_path / "photo.nii.gz")[..., 0]
        drawn = np.stack([seen >= 20, seen >= 30])
        write_mask(tmp_path / "mask.nii.gz", drawn, "nifti", like=tmp_path / "photo.nii.gz")
        mask = nibabel.load(tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(mask.affine, photo.affine)
        assert mask.header.get_zooms() == photo.header.get_zooms()[:3]
        assert mask.header["sform_code"] == photo.header["sform_code"]
        assert mask.header["qform_code"] == photo.header["qform_code"]
        assert mask.header.get_xyzt_units()[0] == "mm"
        assert mask.get_data_dtype() == np.uint8
        assert mask.shape == photo.shape[:3]
        np.testing.assert_array_equal(np.asarray(mask.dataobj), (shown >= 20) * 1 + (shown >= 30))
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", LABELS), drawn)

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(values=st.lists(st.floats(-50, 50, width=32), min_size=12, max_size=12), code=st.sampled_from([0, 1, 2]))
    def test_any_affine_is_kept_or_refused(self, tmp_path_factory, values, code):
        folder = tmp_path_factory.mktemp("any")
        photo = nibabel.Nifti1Image(coded(lopsided(0), 10, 20, 30).T[..., None], None)
        photo.set_sform(np.array([*values, 0, 0, 0, 1]).reshape(4, 4), code)
        nibabel.save(photo, folder / "photo.nii")
        try:
            seen = read_image(folder / "photo.nii")[..., 0]
        except DataError as error:
            assert "photo.nii: " in str(error)
            return
        drawn = np.stack([seen >= 20, seen >= 30])
        write_mask(folder / "mask.nii.gz", drawn, "nifti", like=folder / "photo.nii")
        np.testing.assert_array_equal(read_mask(folder / "mask.nii.gz", LABELS), drawn)
        affines = (nibabel.load(folder / name).affine for name in ("photo.nii", "mask.nii.gz"))
        np.testing.assert_array_equal(*affines)

    def test_a_picture_gives_its_mask_no_geometry(self, tmp_path):
        photograph(tmp_path / "photo.png")
        masks = lopsided(0)
        write_mask(tmp_path / "a.nii.gz", masks, "nifti", like=tmp_path / "photo.png")
        write_mask(tmp_path / "b.nii.gz", masks, "nifti")
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
