from __future__ import annotations

import hashlib

import numpy as np
import pytest
from conftest import draw_case
from PIL import Image

from fundus_seg.config import DataConfig, load_config
from fundus_seg.data import FundusDataset, open_root
from fundus_seg.data.cache import load_resized
from fundus_seg.data.domain_file import read_domain_file
from fundus_seg.data.files import hashed_split
from fundus_seg.errors import DataError, UsageError
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.phantom.make import PHANTOM_MARKER, is_phantom_name, make_phantom
from fundus_seg.protocol import source_half
from fundus_seg.training import train

TWO = """\
coding: {cup: 0, rim: 128, background: 255}
domains:
  north:
    name: Clinic North, Kowa
    train: {images: "north/train/*.jpg", masks: "north/masks/{name}.png"}
    test: {images: "north/test/*.jpg", masks: "north/masks/{name}.png"}
  south:
    images: "south/photos/*.tif"
    masks: {disc: "south/od/{name}.png", cup: "south/oc/{name}.png"}
"""


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def two(tmp_path):
    """Two clinics, the second with two binary files a case and no splits."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 4)):
        for number in range(count):
            photograph, mask = draw_case(rng, 64)
            save(photograph, tmp_path / f"north/{split}/{split} {number}.jpg")
            save(mask, tmp_path / f"north/masks/{split} {number}.png")
    for number in range(20):
        photograph, mask = draw_case(rng, 64)
        grey = np.asarray(mask)
        save(photograph, tmp_path / f"south/photos/süd {number}.tif")
        save(Image.fromarray(grey < 255), tmp_path / f"south/od/süd {number}.png")
        save(Image.fromarray((grey == 0).astype(np.uint8)), tmp_path / f"south/oc/süd {number}.png")
    (tmp_path / "domains.yaml").write_text(TWO, "utf8")
    return tmp_path / "domains.yaml"


def test_a_yaml_file_is_a_data_root(two, monkeypatch):
    monkeypatch.chdir(two.parent)
    root = open_root("domains.yaml")
    assert root.domains == root.experiment == ("north", "south")
    assert not root.phantom
    assert open_root(root.name).cases("north", "test")[0].image == two.parent / "north/test/test 0.jpg"
    assert [case.name for case in root.cases("north", "train")] == ["train 0", "train 1", "train 2"]
    monkeypatch.setenv("FUNDUS_SEG_DATA", str(two))
    assert open_root().domains == ("north", "south")


def test_two_binary_files_read_as_one_coded_file(two):
    for sample in FundusDataset(two, "south", "train"):
        number = sample.name.removeprefix("süd ")
        assert sample.masks.shape == (2, 64, 64)
        assert sample.masks[0].sum() > sample.masks[1].sum() > 0, number
    case = open_root(two).cases("south", "train")[0]
    disc, cup = (np.asarray(Image.open(path)) > 0 for path in case.masks[0])
    np.testing.assert_array_equal(FundusDataset(two, "south", "train")[0].masks, [disc, cup])


def test_without_splits_one_name_in_five_is_for_testing(two):
    root = open_root(two)
    names = {split: {case.name for case in root.cases("south", split)} for split in ("train", "test")}
    assert names["train"] | names["test"] == {f"süd {number}" for number in range(20)}
    assert not names["train"] & names["test"]
    assert all(hashed_split(name) == split for split, found in names.items() for name in found)
    many = [hashlib.md5(str(number).encode()).hexdigest() for number in range(5000)]
    test = [name for name in many if hashed_split(name) == "test"]
    assert 0.18 < len(test) / len(many) < 0.22
    assert 0.45 < sum(source_half(name) == "select" for name in test) / len(test) < 0.55


def test_trains_and_evaluates_like_the_four_domains(two, tmp_path):
    settings = load_config("tiny", overrides=["train.threads=1"], arguments={"holdout": "north"})
    run = train(settings, open_root(two), tmp_path / "runs")
    assert run.path.relative_to(tmp_path / "runs").parts[:2] == ("tiny", "north")
    assert "sources" not in run.path.parent.name, "all other domains are this root's standard"
    assert run.read_config()["provenance"]["data_root"] == str(two)
    evaluation = evaluate(run)
    assert set(evaluation.cases["case"]) == {f"test {number}" for number in range(4)}
    with pytest.raises(UsageError, match=r"unknown domain 'nroth': did you mean 'north'\?"):
        train(settings.model_copy(update={"holdout": "nroth"}), open_root(two), tmp_path / "runs")


def test_another_coding_is_another_cache_entry_and_another_digest(two):
    before = load_resized(open_root(two).cases("north", "train"), DataConfig(size=32))
    two.write_text(
        TWO.replace("coding: {cup: 0, rim: 128, background: 255}", 'coding: {disc: "<=200", cup: "<=50"}'), "utf8"
    )
    after = load_resized(open_root(two).cases("north", "train"), DataConfig(size=32))
    assert after.digest != before.digest
    assert after.masks.filename != before.masks.filename
    np.testing.assert_array_equal(after.masks, before.masks)


def test_the_phantom_stays_the_phantom_behind_a_file(two):
    (two.parent / "south" / PHANTOM_MARKER).touch()
    assert open_root(two).phantom


def test_the_phantom_stays_the_phantom_in_a_copy_without_its_marker(tmp_path):
    make_phantom(tmp_path, per_domain=3)
    (tmp_path / PHANTOM_MARKER).unlink()
    assert open_root(tmp_path).phantom
    assert not any(map(is_phantom_name, ("phantom-E-001.png", "phantom-A-1.png", "xphantom-A-001.png", "Atest0.png")))


@pytest.mark.parametrize(
    ("merge", "rows"), [("majority", 30), ("union", 40), ("intersection", 20), ("ann", 20), ("cem", 40)]
)
def test_annotators(tmp_path, merge, rows):
    """Three annotators drew 20, 30 and 40 rows of the disc, in colours; `{name}` is a folder."""
    for number in range(10):
        save(Image.new("RGB", (64, 64)), tmp_path / f"eye{number}/photo.bmp")
        for annotator, height in (("ann", 20), ("bob", 30), ("cem", 40)):
            mask = np.zeros((64, 64, 3), dtype=np.uint8)
            mask[:height], mask[:5] = (255, 0, 0), (0, 0, 255)
            save(Image.fromarray(mask), tmp_path / f"eye{number}/{annotator}.png")
    (tmp_path / "d.yml").write_text(
        f"""
domains:
  one: &all
    coding: {{cup: "#0000FF", rim: "#ff0000", background: 0}}
    images: "{{name}}/photo.bmp"
    masks: "{{name}}/{{annotator}}.png"
    annotators: {{names: [ann, bob, cem], merge: {merge}}}
  two: {{images: "*.jpg", masks: "{{name}}.png"}}
"""
    )
    samples = list(FundusDataset(tmp_path / "d.yml", "one", "train"))
    assert {sample.name for sample in samples} <= {f"eye{number}" for number in range(10)}
    for sample in samples:
        assert sample.masks[:, :, 0].sum(axis=1).tolist() == [rows, 5]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("images: \"south", "imges: \"south", 8, r"unknown key 'imges': did you mean 'images'\?"),
        ("  south:", "  north:", 7, "the key 'north' appears twice"),
        ("  south:", "  1/2:", 7, "'1/2' cannot name a domain: take one short word"),
        ("domains:", "domain:", 2, r"unknown key 'domain': did you mean 'domains'\?"),
        ("cup: 0, rim: 128", "cup: 0, rim: 300", 1, "'300' is not a colour: write a grey of 0 to 255, or \"#rrggbb\""),
        ("cup: 0, rim: 128", "cup: 0, rim: 0", 1, "need three different colours"),
        ("cup: 0, rim: 128", "cup: 0", 1, "the key 'rim' is missing"),
        ("{cup: 0, rim: 128, background: 255}", "defo", 1, "unknown coding 'defo'"),
        ("disc: \"south/od/{name}.png\", ", "", 9, "the key 'disc' is missing"),
        ("south/oc/{name}.png", "south/oc/{nmae}.png", 9, r"unknown placeholder '{nmae}': did you mean '{name}'\?"),
        ("south/oc/{name}.png", "south/oc/*.png", 9, "lacks '{name}', which stands for the photograph's name"),
        ("south/oc/{name}.png", "south/**/{name}.png", 9, "write '\\*' for each folder between"),
        ("south/oc/{name}.png", "south/oc/cup.png", 9, "lacks '{name}', which stands for the photograph's name"),
        ("south/oc/{name}.png", "{annotator}/{name}.png", 9, "the domain has no 'annotators"),
        ("south/photos/*.tif", "south/a.tif", 8, "is one file: write '\\*' or '{name}'"),
        ("south/photos/*.tif", "south/**/*.tif", 8, "write '\\*' for each folder between"),
        ("    train: {images", "    images: x\n    train: {images", 5, "'images' stands beside a split"),
        ("    train: {images", "    # {images", 6, "a test split needs the key 'train'"),
        ("    name: Clinic North, Kowa", "    name: [a]", 4, "expected a text here"),
        ("    name: Clinic North, Kowa", "    name: {", 6, "not valid YAML"),
        ("    images: \"south", "    coding: dofe\n    images: \"south", 8, "two binary files need no coding"),
        ("    images: \"south", "    annotators: {names: [a]}\n    images: \"south", 10, "lacks '{annotator}'"),
        ("    images: \"south", "    annotators: [a]\n    images: \"south", 8, "expected names here"),
        ("    images: \"south", "    annotators: {names: [a, a]}\n    images: \"s", 8, "annotator 'a': each"),
        ("    images: \"south", "    annotators: {names: [a], merge: b}\n    images: \"s", 8, "unknown merge 'b'"),
    ],
)  # fmt: skip
def test_every_complaint_names_the_line(tmp_path, old, new, line, message):
    assert TWO.count(old) == 1
    path = tmp_path / "domains.yaml"
    path.write_text(TWO.replace(old, new), "utf8")
    with pytest.raises(DataError, match=rf"^\S*domains\.yaml:{line}: [^\n]*{message}[^\n]*$") as caught:
        read_domain_file(path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (path, line)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file; write the key 'domains'"),
        (b"- 1", "1: expected domains here"),
        (b"domains:", "1: expected an entry for each domain here"),
        (b"\xff\xfe", "cannot be read .not a text file in UTF-8"),
        (b"domains: {a: {images: '*.png', masks: '{name}.png'}}", "holds only domain a; training needs two or more"),
        (b"domains: {a: \x07}", "not valid YAML"),
    ],
)
def test_files_that_describe_nothing(tmp_path, content, message):
    path = tmp_path / "domains.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"domains\.yaml:? ?{message}"):
        open_root(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.yaml: cannot be read \(No such file or directory\)"):
        open_root(tmp_path / "gone.yaml")


def test_a_photograph_in_two_places_is_refused(two):
    """Here every photograph of the test split would train."""
    two.write_text(TWO.replace("north/train/*.jpg", "north/*/*.jpg"), "utf8")
    with pytest.raises(
        DataError, match=r"test 0\.jpg: a photograph of north/train and of north/test; it must belong to one"
    ):
        open_root(two).cases("north", "train")


def test_photographs_of_one_name_are_refused(two):
    save(Image.new("RGB", (64, 64)), two.parent / "south/more/süd 0.tif")
    two.write_text(TWO.replace("south/photos/*.tif", "south/*/*.tif"), "utf8")
    split = hashed_split("süd 0")
    with pytest.raises(DataError, match=rf"süd 0\.tif: one of 2 photographs of south/{split} named süd 0"):
        open_root(two).cases("south", split)


def test_too_few_photographs_to_split_by_name(two):
    for case in open_root(two).cases("south", "test"):
        case.image.unlink()
    with pytest.raises(
        DataError, match=r"south/photos: none of its \d+ photographs is for test by its name; split them"
    ):
        open_root(two).cases("south", "test")


def test_masks_shared_between_splits_need_a_photograph_in_either(two):
    assert len(open_root(two).cases("north", "train")) == 3
    (two.parent / "north/test/test 1.jpg").unlink()
    with pytest.raises(DataError, match=r"north/masks/test 1\.png: mask without a photograph"):
        open_root(two).cases("north", "train")


def test_every_binary_file_and_its_size_is_checked(two):
    case = open_root(two).cases("south", "train")[0]
    Image.new("L", (32, 16)).save(case.masks[0][1])
    with pytest.raises(DataError, match=rf"{case.masks[0][1].name}: 32x16 pixels, but .*od.* has 64x64"):
        FundusDataset(two, "south", "train")[0]
    case.masks[0][0].unlink()
    with pytest.raises(DataError, match=rf"{case.image.name}: photograph without a mask; expected .*south/od"):
        open_root(two).cases("south", "train")
