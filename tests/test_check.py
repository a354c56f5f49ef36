"""A data root with every fault that we could think of, each reported by its file."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fundus_seg.data.check import check_root
from fundus_seg.data.io import read_image
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError
from fundus_seg_cli.main import main


@pytest.fixture
def eyes(draw_root):
    """A function that draws a root whose photographs differ as eyes do, each by a pattern of its own."""

    def draw(**arguments):
        root = draw_root(**arguments)
        for number, path in enumerate(sorted(root.rglob("image/*.png"))):
            rng = np.random.default_rng(number)
            pattern = cv2.resize(rng.normal(0, 25, (14, 14, 1)), (64, 64), interpolation=cv2.INTER_CUBIC)
            photograph = np.asarray(Image.open(path)) + pattern[..., None]
            Image.fromarray(np.clip(photograph, 0, 255).astype(np.uint8)).save(path)
        return root

    return draw


def checked(root: Path):
    found = check_root(open_root(root, least=1))
    return {
        severity: {(str(finding.path).removeprefix(f"{root}/"), finding.text) for finding in found.problems(severity)}
        for severity in ("error", "warning")
    }


def reported(problems, file, text):
    return any(path == file and text in what for path, what in problems)


def redraw_mask(path, change):
    """Save what `change` makes of a mask's greys (64, 64) and of its distance from the middle in pixels."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    greys = np.array(Image.open(path))
    Image.fromarray(change(greys, np.hypot(rows, columns)).astype(np.uint8)).save(path)


def header_only(width, height):
    """A PNG that says how large it is, and holds no pixels."""

    def chunk(kind, content=b""):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT") + chunk(b"IEND")


def reencoded(path):
    """The photograph as a phone would send it: smaller, brighter, compressed."""
    file = io.BytesIO()
    Image.open(path).resize((56, 56)).point(lambda value: min(255, 1.2 * value)).save(file, "JPEG", quality=60)
    return Image.open(file)


def test_a_sound_root_has_no_problem(eyes):
    assert checked(eyes()) == {"error": set(), "warning": set()}


def test_a_summary_of_each_split(eyes):
    root = eyes(domains="AC", train=2, test=2)
    for path in root.glob("Domain1/train/ROIs/mask/*.png"):
        redraw_mask(path, lambda greys, far: np.select([far < 8, far < 16], [0, 128], 255))
    summary = check_root(open_root(root)).splits[0]
    assert (summary.domain, summary.split, summary.cases) == ("A", "train", 2)
    assert summary.frames == {"64x64": 2}
    assert list(summary.greys) == ["0", "128", "255"]
    assert sum(summary.greys.values()) == 2 * 64 * 64
    assert (summary.disc_to_frame.mean, summary.disc_to_frame.sd) == (32 / 64, 0.0)  # rows 16 to 47
    assert (summary.cup_to_disc.mean, summary.cup_to_disc.count) == (16 / 32, 2)
    assert [(split.domain, split.split) for split in check_root(open_root(root)).splits[1:]] == [
        ("A", "test"),
        ("C", "train"),
        ("C", "test"),
    ]


def test_all_planted_faults_are_reported(eyes):
    root = eyes(train=12, test=6)
    train, test = Path("Domain1/train/ROIs"), Path("Domain2/test/ROIs")
    images, masks = root / train / "image", root / train / "mask"
    planted = {"error": [], "warning": []}

    def plant(severity, file, text):
        planted[severity].append((str(file), text))

    (masks / "Atrain0.png").unlink()
    plant("error", train / "image/Atrain0.png", "photograph without a mask")
    (images / "Atrain1.png").unlink()
    plant("error", train / "mask/Atrain1.png", "mask without a photograph")
    Image.open(masks / "Atrain2.png").resize((32, 48), Image.Resampling.NEAREST).save(masks / "Atrain2.png")
    plant("error", train / "mask/Atrain2.png", "32x48 pixels, but its photograph has 64x64")
    redraw_mask(masks / "Atrain3.png", lambda greys, far: np.where(greys == 128, 90, greys))
    plant("error", train / "mask/Atrain3.png", "greys [90]")
    plant("warning", train / "mask/Atrain3.png", "shows cup 0, rim 90, background 255, unlike the others of A/train")
    Image.new("RGB", (64, 64), "red").save(masks / "Atrain4.png")
    plant("error", train / "mask/Atrain4.png", "a coloured mask")
    redraw_mask(masks / "Atrain5.png", lambda greys, far: np.full_like(greys, 255))
    plant("error", train / "mask/Atrain5.png", "the disc is empty")
    redraw_mask(masks / "Atrain6.png", lambda greys, far: np.where(far < 16, 0, 255))
    plant("error", train / "mask/Atrain6.png", "no rim")
    plant("warning", train / "mask/Atrain6.png", "shows 0 inside 255, so one structure alone, unlike the others")
    (images / "Atrain7.png").write_bytes(b"")
    plant("error", train / "image/Atrain7.png", "not an image")
    (images / "Atrain8.png").write_bytes((images / "Atrain8.png").read_bytes()[:2000])
    plant("error", train / "image/Atrain8.png", "damaged")
    (images / "Atrain9.png").write_text("an eye", "utf8")
    plant("error", train / "image/Atrain9.png", "not an image")
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(images / "Atrain10.png")
    plant("error", train / "image/Atrain10.png", "more than 8 bits")
    (images / "Atrain11.png").write_bytes(header_only(40_000, 40_000))
    plant("error", train / "image/Atrain11.png", "more than 100 million")

    images, masks = root / test / "image", root / test / "mask"
    (images / "Btest0.png").write_bytes((root / "Domain1/test/ROIs/image/Atest0.png").read_bytes())
    plant("error", test / "image/Btest0.png", "the same pixels as")
    reencoded(root / "Domain2/train/ROIs/image/Btrain0.png").save(images / "Btest1.png")
    plant("error", test / "mask/Btest1.png", "64x64 pixels, but its photograph has 56x56")
    plant("error", test / "image/Btest1.png", "the same picture as")
    ImageOps.mirror(Image.open(root / "Domain1/test/ROIs/image/Atest1.png")).save(images / "Btest2.png")
    plant("error", test / "image/Btest2.png", "mirrored")
    (images / "Btest3.png").unlink()
    (images / "Btest3.png").symlink_to(images / "Btest3.png")
    plant("error", test / "image/Btest3.png", "Too many levels of symbolic links")
    Image.new("RGB", (64, 64), "black").save(images / "Btest4.png")
    plant("error", test / "image/Btest4.png", "one flat colour")
    redraw_mask(masks / "Btest4.png", lambda greys, far: np.full_like(greys, 255))
    plant("warning", test / "mask/Btest4.png", "the disc is empty")
    redraw_mask(masks / "Btest5.png", lambda greys, far: np.where(greys == 0, 128, greys))
    plant("warning", test / "mask/Btest5.png", "the cup is empty")

    rest = Path("Domain2/train/ROIs")
    for mask, change, text in (
        ("Btrain1.png", lambda greys, far: np.where(np.arange(64) < 32, greys, 255), "the cup touches the background"),
        ("Btrain2.png", lambda greys, far: np.where(np.arange(64) < 26, 128, greys), "the frame cuts the disc"),
    ):
        redraw_mask(root / rest / "mask" / mask, change)
        plant("warning", rest / "mask" / mask, text)
    Image.open(root / rest / "image/Btrain3.png").save(root / rest / "image/Btrain4.png", compress_level=0)
    plant("warning", rest / "image/Btrain4.png", "the same pixels as")

    for path in (root / "Domain3/test/ROIs").glob("*/*.png"):
        path.unlink()
    plant("error", "Domain3/test/ROIs/image", "no *.png in it")
    for split in ("train", "test"):
        folder = root / "Domain4" / split / "ROIs/mask"
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        plant("error", folder.relative_to(root), "no such folder")

    found = checked(root)
    missed = [
        (severity, *fault)
        for severity, faults in planted.items()
        for fault in faults
        if not reported(found[severity], *fault)
    ]
    assert missed == []
    assert len(planted["error"]) + len(planted["warning"]) >= 20
    assert {severity: len(faults) for severity, faults in planted.items()} == {
        severity: len(problems) for severity, problems in found.items()
    }, "nothing else is wrong with this root"


def test_files_that_permissions_close_are_reported(eyes):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    root = eyes(domains="AB")
    path = root / "Domain1/train/ROIs/image/Atrain0.png"
    path.chmod(0)
    assert reported(checked(root)["error"], "Domain1/train/ROIs/image/Atrain0.png", "cannot be opened")


def test_training_and_check_refuse_the_same_sizes(tmp_path):
    for width, height in ((40_000, 40_000), (10_001, 10_000)):
        (tmp_path / "huge.png").write_bytes(header_only(width, height))
        with pytest.raises(DataError, match="more than 100 million"):
            read_image(tmp_path / "huge.png")


def test_one_domain_cannot_train_but_is_checked(eyes):
    found = check_root(open_root(eyes(domains="A"), least=1))
    assert ["holds only domain A" in finding.text for finding in found.problems("error")] == [True]
    assert [split.cases for split in found.splits] == [3, 4]


def test_too_few_test_cases_are_a_warning(eyes):
    """Only selection on the sources and in-domain scores need both halves, and these refuse by themselves."""
    found = checked(eyes(domains="AB", test=1))
    assert found["error"] == set()
    assert sum("fall into one half" in text and "source-validation" in text for _, text in found["warning"]) == 2


def test_whole_photographs_beside_crops_are_one_warning_with_the_numbers(eyes):
    """Domain B's photographs get a margin as wide as they are on each side: its discs are a third of those of A."""
    root = eyes(domains="AB")
    for path in root.glob("Domain2/*/ROIs/*/*.png"):
        picture = Image.open(path)
        ImageOps.expand(picture, border=64, fill=255 if picture.mode == "L" else (9, 9, 9)).save(path)
    (text,) = (text for path, text in checked(root)["warning"] if path == str(root))
    assert text.startswith("the disc's diameter as a share of the frame differs by a factor of ")
    assert all(f"{domain}/{split} 0." in text for domain in "AB" for split in ("train", "test"))
    assert "below 0.25 whole photographs, above 0.35 crops" in text
    assert text.endswith("crop all domains alike about the disc, or none")


def test_a_colon_in_a_path_cuts_nothing(eyes):
    root = eyes(folder="Study: one", domains="AB", train=2, test=2)
    mask = root / "Domain1/train/ROIs/mask/Atrain1.png"
    redraw_mask(mask, lambda greys, far: np.where(greys == 0, 128, greys))
    assert check_root(open_root(root)).as_dict()["problems"] == [
        {
            "severity": "warning",
            "file": str(mask),
            "problem": "the cup is empty: outline it, or its scores exclude the case",
        }
    ]


@pytest.mark.parametrize("fault", [None, "warning", "error"])
def test_exit_code_and_json(eyes, capsys, monkeypatch, fault):
    root = eyes(domains="AB", train=2, test=2)
    mask = root / "Domain1/train/ROIs/mask/Atrain1.png"
    if fault == "warning":
        redraw_mask(mask, lambda greys, far: np.where(greys == 0, 128, greys))
    elif fault == "error":
        mask.write_bytes(b"")
    for arguments in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["fundus-seg", "data", "check", str(root), *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == (1 if fault == "error" else 0)
        shown = capsys.readouterr()
        if arguments:
            found = json.loads(shown.out)
            assert found == check_root(open_root(root)).as_dict()
            assert [problem["severity"] for problem in found["problems"]] == ([fault] if fault else [])
            assert all(problem["file"] == str(mask) for problem in found["problems"])
        else:
            assert [
                line for line in shown.out.splitlines() if str(mask) in line and line.startswith(f"{fault}: ")
            ] or not fault


def test_the_table_counts_cases_in_each_column(draw_root, command):
    """Every case lacks its cup and one its disc too: numbers of cases, none of which can exceed all."""
    root = draw_root(domains="AB", test=1)
    for number, path in enumerate(sorted((root / "Domain1/train/ROIs/mask").iterdir())):
        grey = np.asarray(Image.open(path))
        Image.fromarray(np.where((grey == 255) | (number == 0), 255, 128).astype(np.uint8)).save(path)
    row = next(line for line in command("data", "check", root, code=1).out.splitlines() if line.startswith("A train"))
    assert row.split()[5:10] == ["3", "1", "3", "0", "0"]  # behind A, train, the frame and two greys
