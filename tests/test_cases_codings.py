"""Masks as other tools code them, photographs as cameras turn them, files with a catch: what each must give."""

from __future__ import annotations

import gzip
import re
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from conftest import draw_case
from drawn_masks import coded, eye, pairs_of, save
from PIL import Image
from small_runs import Lines

from fundus_seg.config import DataConfig, load_config
from fundus_seg.data.cache import load_resized
from fundus_seg.data.check import check_root
from fundus_seg.data.coding import LABELS, Thresholds
from fundus_seg.data.dataset import read_truth
from fundus_seg.data.domain_file import read_coding, read_domain_file
from fundus_seg.data.io import read_image, read_mask
from fundus_seg.data.layout import open_root
from fundus_seg.data.limits import Budget
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.data.stray import stray_parts
from fundus_seg.data.witness import Witness
from fundus_seg.errors import ConfigError, DataError, UsageError
from fundus_seg.evaluation.external import score_masks
from fundus_seg.inference.truths import find_truths
from fundus_seg.reporting.atlas import make_atlas
from fundus_seg_cli.main import _warning_line

CODED = {
    "inverted": ([0, 128, 255], "{cup: 255, rim: 128, background: 0}"),
    "labels": ([0, 1, 2], "labels"),
    "labels, cup first": ([0, 2, 1], "{cup: 1, rim: 2, background: 0}"),
    "rim and cup swapped": ([255, 0, 128], "{cup: 128, rim: 0, background: 255}"),
    "stretched labels": ([0, 85, 170], "{cup: 170, rim: 85, background: 0}"),
    "colour map": (
        [[68, 1, 84], [33, 145, 140], [253, 231, 37]],
        '{cup: "#fde725", rim: "#21918c", background: "#440154"}',
    ),
}
"""Colours of background, rim and cup, and the coding that the error must name."""
CLASSIC = 'images: "Domain{}/{}/ROIs/image/*.png", masks: "Domain{}/{}/ROIs/mask/{{name}}.png"'


def recode(root, colours, domain="Domain1", splits=("train", "test")):
    """Save the dofe-coded masks of one domain in other colours, and return what they were."""
    before = {}
    for split in splits:
        for path in sorted((root / domain / split / "ROIs/mask").iterdir()):
            greys = np.asarray(Image.open(path))
            before[path] = [greys < 255, greys == 0]
            labels = np.select([greys == 0, greys == 128], [2, 1], 0)
            Image.fromarray(np.array(colours, np.uint8)[labels]).save(path)
    return before


def findings(root, severity):
    """What the check finds; the simple photographs of these tests look alike, which is left out."""
    return [found for found in check_root(open_root(root)).problems(severity) if "the same " not in found.text]


def errors_of(root):
    return [str(finding) for finding in findings(root, "error")]


class TestRecognition:
    @pytest.mark.parametrize("colours, written", CODED.values(), ids=CODED)
    def test_an_error_names_what_masks_show_and_the_line_that_mends_it(self, draw_root, colours, written):
        root = draw_root(domains="AB")
        before = recode(root, colours)
        for split, count, message in zip(("train", "test"), (3, 4), sorted(errors_of(root), reverse=True), strict=True):
            assert f"{count} of {count} masks of A/{split} show " in message
            assert f"write `coding: {written}` for this domain" in message
        assert not [finding for finding in findings(root, "warning") if "cuts the disc" in finding.text]
        for read in (
            lambda: load_resized(open_root(root).cases("A", "train"), DataConfig(size=32)),
            lambda: load_resized(open_root(root).cases("A", "test"), DataConfig(size=32)),
            lambda: make_atlas(open_root(root)),
        ):
            with pytest.raises(DataError) as caught:
                read()
            assert f"write `coding: {written}`" in str(caught.value)
        lines = [f"coding: {written}, " if number == 1 else "" for number in (1, 2)]
        (root / "d.yaml").write_text(
            "domains:\n"
            + "".join(
                f"  {key}: {{{line}train: {{{CLASSIC.format(n, 'train', n, 'train')}}}, "
                f"test: {{{CLASSIC.format(n, 'test', n, 'test')}}}}}\n"
                for (n, key), line in zip(enumerate("AB", 1), lines, strict=True)
            )
        )
        assert errors_of(root / "d.yaml") == []
        for case in open_root(root / "d.yaml").cases("A", "test"):
            np.testing.assert_array_equal(read_truth(case).masks, before[case.mask])

    @pytest.mark.parametrize(("colours", "shows"), [([0, 255, 255], "255 inside 0"), ([255, 0, 0], "0 inside 255")])
    def test_one_structure_alone_is_named(self, draw_root, colours, shows):
        root = draw_root(domains="AB")
        recode(root, colours)
        messages = errors_of(root)
        assert len(messages) == 2
        assert all(f"show {shows}, so one structure alone" in message for message in messages)
        assert all("write `masks: {disc: " in message for message in messages)

    def test_a_test_split_alone_is_enough(self, draw_root):
        root = draw_root(domains="AB")
        recode(root, [0, 1, 2], splits=["test"])
        (message,) = errors_of(root)
        assert "4 of 4 masks of A/test show cup 2, rim 1, background 0" in message

    def test_one_odd_mask_is_a_warning(self, draw_root):
        root = draw_root(domains="AB", test=12)
        path = root / "Domain1/test/ROIs/mask/Atest3.png"
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        assert errors_of(root) == []
        assert "shows cup 255, rim 127, background 0, unlike the others of A/test" in [
            finding.text for finding in findings(root, "warning") if finding.path == path
        ]
        for _ in ("built", "read from the cache"):
            (line,) = load_resized(open_root(root).cases("A", "test"), DataConfig(size=32)).odd
            assert line.startswith(f"1 of 12 masks of A/test contradict their coding; first {path}: shows cup 255")

    def test_two_codings_in_one_split_are_refused(self, draw_root):
        root = draw_root(domains="AB")
        for number in (0, 1):
            path = root / f"Domain1/test/ROIs/mask/Atest{number}.png"
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        (message,) = errors_of(root)
        assert "2 of 4 masks of A/test show cup 255, rim 127, background 0" in message
        assert message.endswith("export all of them alike")

    def test_sound_masks_are_never_accused(self, draw_root):
        """A disc that leaves the frame, a cup that leaves its disc, and empty masks are odd, not miscoded."""
        root = draw_root(domains="AB", train=6, test=6)
        rows, columns = np.mgrid[:64, :64] - 31.5
        shapes = {
            0: (np.hypot(rows, columns) < 38, np.hypot(rows, columns) < 20),
            1: (np.hypot(rows + 31, columns) < 30, np.hypot(rows + 31, columns) < 10),
            2: (np.hypot(rows, columns) < 20, np.hypot(rows, columns - 16) < 10),
            3: (np.hypot(rows, columns) < 20, rows > 99),
            4: (rows > 99, rows > 99),
            5: (np.hypot(rows, columns) < 20, np.hypot(rows, columns) < 19),
        }
        for number, (disc, cup) in shapes.items():
            path = root / f"Domain1/test/ROIs/mask/Atest{number}.png"
            Image.fromarray(coded(np.stack([disc | cup, cup]), 255, 128, 0)).save(path)
        found = check_root(open_root(root))
        assert not [finding for finding in found.findings if "show" in finding.text]
        odd = load_resized(open_root(root).cases("A", "test"), DataConfig(size=32)).odd
        assert not [line for line in odd if "coding" in line]


def binary_root(tmp_path, disc=lambda mask: mask * 255, cup=lambda mask: mask * 255, more=""):
    """A domain file with two domains of binary masks, disc and cup, that two functions make."""
    rng = np.random.default_rng(0)
    for domain in "ab":
        for number in range(12):
            photograph, mask = draw_case(rng, 64)
            greys = np.asarray(mask)
            save(tmp_path / domain / f"photo/{number}.png", np.asarray(photograph))
            for name, change, inside in (("od", disc, greys < 255), ("oc", cup, greys == 0)):
                pixels = change(inside.astype(np.uint8)) if domain == "a" else inside * 255
                save(tmp_path / domain / f"{name}/{number}.png", pixels.astype(np.uint8))
    masks = 'masks: {{disc: "{0}/od/{{name}}.png", cup: "{0}/oc/{{name}}.png"}}'
    path = tmp_path / "binary.yaml"
    path.write_text(
        "domains:\n"
        + "".join(
            f'  {key}: {{images: "{key}/photo/*.png", {masks.format(key)}{more if key == "a" else ""}}}\n'
            for key in "ab"
        )
    )
    return path


class TestBinaryFiles:
    @pytest.mark.parametrize(
        ("disc", "cup", "shows"),
        [
            (lambda m: 255 - m * 255, lambda m: 255 - m * 255, 'black on white, .*write `coding: "<128"`'),
            (lambda m: m * 255, lambda m: 255 - m * 255, "0 inside 255"),
        ],
        ids=["both inverted", "cup inverted"],
    )
    def test_inverted_files_are_named(self, tmp_path, disc, cup, shows):
        messages = errors_of(binary_root(tmp_path, disc, cup))
        assert len(messages) == 2
        for message in messages:
            assert re.search(shows, message)

    def test_the_line_that_the_error_writes_reads_inverted_files(self, tmp_path):
        inverted = binary_root(tmp_path, lambda m: 255 - m * 255, lambda m: 255 - m * 255, ', coding: "<128"')
        assert errors_of(inverted) == []
        case = open_root(inverted).cases("a", "train")[0]
        disc, cup = read_truth(case).masks
        assert 0 < cup.sum() < disc.sum() < disc.size / 2

    def test_disc_and_cup_in_each_others_place_are_named(self, tmp_path):
        path = binary_root(tmp_path)
        path.write_text(
            path.read_text("utf8").replace("a/od", "a/x").replace("a/oc", "a/od").replace("a/x", "a/oc"), "utf8"
        )
        messages = errors_of(path)
        assert len(messages) == 2
        assert all("show a disc inside its cup" in message for message in messages)
        assert all('exchange the two patterns in "masks:' in message for message in messages)

    def test_votes_of_readers_need_a_threshold(self, tmp_path):
        def votes(mask):
            soft = np.array(Image.fromarray(mask * 255).resize((32, 32), 2).resize((64, 64), 2))
            return (np.round(soft / 63.75) * 63.75).astype(np.uint8)

        soft = binary_root(tmp_path, votes, votes)
        assert all('or give thresholds as the coding: ">=128"' in message for message in errors_of(soft))
        for more in (', coding: ">=128"', ', coding: {disc: ">=128", cup: "> 127"}'):
            mended = binary_root(tmp_path, votes, votes, more)
            assert errors_of(mended) == []
            case = open_root(mended).cases("a", "train")[0]
            disc = np.asarray(Image.open(case.masks[0][0]))
            np.testing.assert_array_equal(read_truth(case).masks[0], disc >= 128)


def test_thresholds_cut_one_grey_file_too(tmp_path):
    save(tmp_path / "soft.png", np.array([[0, 64, 128, 191, 255]], np.uint8))
    disc, cup = read_mask(tmp_path / "soft.png", Thresholds(disc=">=64", cup=">=191"))
    assert disc.tolist() == [[False, True, True, True, True]]
    assert cup.tolist() == [[False, False, False, True, True]]
    for text in ('{disc: ">=64", cup: ">=191"}', "{disc: >=64, cup: > 190}"):  # a shell takes the inner quotes away
        assert read_coding(text) == Thresholds(">=64", ">=191")
    assert read_coding("<128") == Thresholds("<=127", "<=127")
    for text in (">=256", ">", "{disc: 128, cup: 64}", '{disc: ">=1"}'):
        with pytest.raises(UsageError, match="is not a coding"):
            read_coding(text)


def test_score_takes_thresholds_of_predictions(truth, tmp_path):
    for number in range(3):
        for structure, mask in zip(("od", "oc"), eye(number), strict=True):
            save(tmp_path / "pred" / structure / f"eye{number}.png", np.where(mask, 191, 64).astype(np.uint8))
    places = [str(tmp_path / "pred" / structure) for structure in ("od", "oc")]
    pairs = pair_masks(places, [str(truth)], prediction_coding=Thresholds(">=128", ">=128"))
    assert score_masks(pairs).cases["dsc"].tolist() == [1] * 6


def pictures(*names):
    """Paths of photographs that are not there, by name."""
    return {name: Path(f"{name}.png") for name in names}


class TestTruthOfPredictions:
    def test_label_masks_are_recognised(self, tmp_path):
        for number in range(3):
            save(tmp_path / f"t/eye{number}.png", coded(eye(number), 0, 1, 2))
        truths = find_truths([str(tmp_path / "t")], None, pictures("eye1", "eye2"), Lines())
        assert set(truths.files) == {"eye1", "eye2"}
        assert truths.annotation.coding == LABELS
        np.testing.assert_array_equal(truths.read("eye1", Witness()), eye(1))

    def test_masks_that_show_no_coding(self, tmp_path):
        disc, _ = eye()
        save(tmp_path / "rim/a.png", coded(np.stack([disc, disc & False]), 255, 128, 0))
        truths = find_truths([str(tmp_path / "rim")], None, pictures("a"), Lines())
        np.testing.assert_array_equal(truths.read("a", Witness())[0], disc)
        save(tmp_path / "disc/a.png", coded(np.stack([disc, disc]), 0, 255, 255))
        told = r"\(a\.png shows 255 inside 0, .*: give two folders .*\); give it as --truth-coding labels"
        with pytest.raises(DataError, match=told):
            find_truths([str(tmp_path / "disc")], None, pictures("a"), Lines())
        with pytest.raises(DataError, match="holds no mask with the name of a photograph"):
            find_truths([str(tmp_path / "disc")], None, pictures("b"), Lines())

    def test_a_given_coding_that_the_truth_contradicts(self, truth):
        swapped = read_coding("{cup: 128, rim: 0, background: 255}")
        pairs = pairs_of(truth, truth, prediction_coding=swapped, truth_coding=swapped)
        with pytest.raises(DataError, match=r"3 of 3 masks of the truth show .*; give --truth-coding 'dofe'"):
            score_masks(pairs)


class TestTurnedPhotographs:
    @pytest.fixture
    def turned(self, draw_root):
        """A root in which EXIF turns two photographs of A; the mask of the first lies on the stored pixels."""

        def turn(wide=False):
            root = draw_root(domains="AB")
            rois = root / "Domain1/test/ROIs"
            for number in (0, 1):
                rows, columns = np.mgrid[:64, : 96 if wide else 64]
                far = np.hypot(rows - 22, columns - 36)
                mask = np.select([far < 8, far < 16], [0, 128], 255).astype(np.uint8)
                photograph = np.repeat((60 + 0.6 * (255 - mask[..., None])), 3, axis=2).astype(np.uint8)
                exif = Image.Exif()
                exif[0x0112] = 6
                Image.fromarray(photograph).save(rois / f"image/Atest{number}.png", exif=exif)
                seen = mask if number == 0 else np.rot90(mask, -1)
                Image.fromarray(seen).save(rois / f"mask/Atest{number}.png")
            return root

        return turn

    @pytest.mark.parametrize(("wide", "text"), [(False, "fits its photograph as it is stored"), (True, "96x64 pixels")])
    def test_a_mask_on_the_stored_pixels_is_told(self, turned, wide, text):
        root = turned(wide)
        (message,) = errors_of(root)
        assert f"Atest0.png: {text}" in message
        assert "EXIF orientation 6" in message
        with pytest.raises(DataError, match="EXIF orientation 6"):
            load_resized(open_root(root).cases("A", "test"), DataConfig(size=32))

    def test_where_the_picture_does_not_tell_a_person_must_look(self, turned):
        root = turned()
        rois = root / "Domain1/test/ROIs"
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
            rois / "image/Atest0.png", exif=exif
        )
        assert errors_of(root) == []
        assert any("look whether the mask is turned too" in each.text for each in findings(root, "warning"))


def test_stray_parts_of_truth_are_told_and_kept(tmp_path):
    masks = eye(size=80)
    assert list(stray_parts(masks)) == []
    masks[:, 60:63, 60:63] = True
    assert list(stray_parts(masks)) == [
        "the disc has 2 components, the second of 9 pixels",
        "the cup has 2 components, the second of 9 pixels",
    ]
    tiny = np.zeros((2, 100, 100), dtype=bool)
    tiny[0, 50, 50] = True
    assert list(stray_parts(tiny)) == ["the disc has only 1 pixel in a frame of 100x100"]
    save(tmp_path / "truth/eye0.png", coded(masks, 255, 128, 0))
    save(tmp_path / "pred/eye0.png", coded(eye(size=80), 255, 128, 0))
    told = Lines()
    scored = score_masks(pairs_of(tmp_path / "pred", tmp_path / "truth"), progress=told)
    assert scored.cases["truth_pixels"].tolist() == [409, 109]
    assert [line for line in told.lines if "1 of 1 masks of the truth have stray parts or holes; first " in line]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class TestFiles:
    @pytest.mark.parametrize(
        "extra",
        [
            chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b" " * 2_100_000)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2_100_000)),
            chunk(b"iCCP", b"Scanner\0\0" + zlib.compress(b"\0" * 2_100_000)),
            chunk(b"tEXt", b"Comment\0" + b" " * 2_100_000),
            b"".join(chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(b" " * 1_000_000)) for n in range(80)),
        ],
        ids=["zTXt", "iTXt", "iCCP", "tEXt", "many"],
    )
    @pytest.mark.parametrize("behind", [False, True])
    def test_large_texts_and_profiles_do_no_harm(self, tmp_path, extra, behind):
        pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "x.png")
        content = (tmp_path / "x.png").read_bytes()
        at = content.index(b"IEND") - 4 if behind else content.index(b"IDAT") - 4
        (tmp_path / "x.png").write_bytes(content[:at] + extra + content[at:])
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), pixels)

    def test_a_tiff_of_many_pages_is_refused_at_once(self, tmp_path):
        page = Image.new("L", (4, 4))
        page.save(tmp_path / "x.tif", save_all=True, append_images=[page] * 300)
        with pytest.raises(DataError, match=r"x\.tif: more than 100 pages are more than one image"):
            read_image(tmp_path / "x.tif")

    @pytest.mark.parametrize("offset", [2.0**31, 2.0**40])
    def test_voxels_far_behind_the_header_are_refused(self, tmp_path, offset):
        content = bytearray(nibabel.Nifti1Image(np.zeros((8, 8, 1), np.uint8), np.eye(4)).to_bytes())
        content[108:112] = struct.pack("<f", offset)
        (tmp_path / "x.nii.gz").write_bytes(gzip.compress(bytes(content)))
        with pytest.raises(DataError, match=r"x\.nii\.gz: its voxels begin at byte \d+"):
            read_image(tmp_path / "x.nii.gz")

    def test_nibabel_prints_nothing(self, tmp_path, capfd):
        content = bytearray(nibabel.Nifti1Image(np.zeros((8, 8, 1), np.uint8), np.eye(4)).to_bytes())
        content[80:84] = struct.pack("<f", -1)
        (tmp_path / "x.nii").write_bytes(bytes(content))
        with pytest.raises(DataError, match="spacing -1"):
            read_image(tmp_path / "x.nii")
        assert capfd.readouterr() == ("", "")

    def test_threads_share_the_memory_that_decoding_takes(self):
        budget, at_work, most = Budget(100), [], []

        def work():
            with budget.taking(60):
                at_work.append(1)
                most.append(len(at_work))
                time.sleep(0.01)
                at_work.pop()

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 6
        with budget.taking(1000):  # more than there is: alone
            pass

    def test_a_decoders_warning_names_the_file(self, tmp_path, monkeypatch):
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 40) + struct.pack("<HHII", 0x0112, 3, 1, 6)
        Image.new("RGB", (4, 4)).save(tmp_path / "x.jpg", exif=exif)
        told = []
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_: told.append(_warning_line(message)))
        warnings.simplefilter("always")
        read_image(tmp_path / "x.jpg")
        (line,) = set(told)
        assert line.startswith(f"warning: {tmp_path}/x.jpg: Corrupt EXIF data")
        assert _warning_line("no file\nat all") == "warning: no file at all\n"


class TestYaml:
    def settings(self, tmp_path, text):
        (tmp_path / "s.yaml").write_text(text, "utf8")
        return load_config(str(tmp_path / "s.yaml"), arguments={"holdout": "A"})

    def test_numbers_are_those_of_yaml_1_2(self, tmp_path):
        settings = self.settings(tmp_path, "seed: 010\ntrain: {epochs: 0o10}\noptim: {lr: 1e-3}\ndata: {size: 0x40}\n")
        assert (settings.seed, settings.train.epochs, settings.optim.lr, settings.data.size) == (10, 8, 0.001, 64)
        assert load_config("tiny", overrides=["seed=010"], arguments={"holdout": "A"}).seed == 10
        assert read_coding("{cup: 010, rim: 0x14, background: 0}").cup == (10, 10, 10)
        (tmp_path / "h.yaml").write_text("holdout: no\n")
        assert load_config(str(tmp_path / "h.yaml")).holdout == "no"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("train: {epochs: 1:00}", "train.epochs"),
            ("train: {threads: yes}", "train.threads"),
            ("optim: {lr: .inf}", "optim.lr: .*finite"),
            ("optim: {lr: .nan}", "optim.lr: "),
            ("scoring: {empty_distance: .inf}", "scoring.empty_distance: .*finite"),
            ("optim: {betas: {a: 1, a: 2}}", "optim.betas: .*the key 'a' stands twice"),
            ("x" * 500 + ": 1", "a key of 500 characters"),
            ("x" * 2_000_000 + ": 1", "2000003 characters, more than"),
        ],
        ids=lambda text: text[:20],
    )
    def test_what_is_no_number_or_no_sound_file(self, tmp_path, text, message):
        with pytest.raises(ConfigError, match=rf"s\.yaml\S* .*{message}") as caught:
            self.settings(tmp_path, text)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (f'{{images: "*.png", masks: "{{name}}.png", annotators: {{names: {list(range(20000))}}}}}', "20000 annot"),
            ('{images: "a\\0b/*.png", masks: "{name}.png"}', "a character that no file name has"),
            ('{images: "\\ud800*.png", masks: "{name}.png"}', "a character that no file name has"),
            ('{images: "*.png", images: "*.jpg", masks: "{name}.png"}', "the key 'images' appears twice"),
            ('{images: "*.png", masks: "{name}.png", ' + "k" * 300 + ": 1}", "a key of 300 characters"),
            ('{images: "' + "*" * 2_000_000 + '", masks: "{name}.png"}', "characters, more than"),
        ],
        ids=["annotators", "NUL", "surrogate", "twice", "long key", "long file"],
    )
    def test_domain_files_are_as_strict(self, tmp_path, text, message):
        path = tmp_path / "d.yaml"
        path.write_text(f"domains:\n  one: {text}\n", "utf8")
        with pytest.raises(DataError, match=rf"^\S*d\.yaml[^\n]*{message}[^\n]*$") as caught:
            read_domain_file(path)
        assert len(str(caught.value)) < 500

    def test_a_domain_file_may_merge(self, tmp_path):
        text = 'domains:\n  one: &one {images: "*.png", masks: "{name}.png"}\n  two: {<<: *one, name: Two}\n'
        (tmp_path / "d.yaml").write_text(text)
        assert [domain.name for domain in read_domain_file(tmp_path / "d.yaml")] == ["one", "Two"]
        assert yaml.safe_load(text)["domains"]["two"]["name"] == "Two"
