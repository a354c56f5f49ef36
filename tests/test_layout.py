from __future__ import annotations

import os
import pickle
import threading

import pytest
from PIL import Image
from small_runs import Lines

from fundus_seg.cache_folder import cache_folder
from fundus_seg.data import files
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError, UsageError


def test_domains_present_are_found(draw_root):
    root = open_root(draw_root(domains="AC"))
    assert root.domains == ("A", "C")
    assert not root.phantom
    assert [case.name for case in root.cases("C", "train")] == ["Ctrain0", "Ctrain1", "Ctrain2"]


def test_train_and_test_partition_each_domain(draw_root):
    root = open_root(draw_root())
    images = [
        case.image for domain in root.domains for split in ("train", "test") for case in root.cases(domain, split)
    ]
    assert len(set(images)) == len(images) == len(list(root.path.rglob("image/*.png")))


@pytest.mark.parametrize(("suffix", "form"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".tif", "TIFF"), (".PNG", "PNG")])
def test_folders_may_hold_other_pictures_than_png(draw_root, suffix, form):
    expected = [case.name for case in open_root(draw_root(domains="AB")).cases("A", "train")]
    root = draw_root("other", domains="AB")
    for path in sorted(root.glob("Domain1/*/ROIs/image/*.png")):
        Image.open(path).save(path.with_suffix(suffix), format=form)
        path.unlink()
    for path in sorted(root.glob("Domain2/*/ROIs/mask/*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    told = Lines()
    opened = open_root(root, progress=told)
    assert told.lines == []
    cases = opened.cases("A", "train")
    assert [case.name for case in cases] == expected
    assert {case.image.suffix for case in cases} == {suffix}
    assert {case.mask.suffix for case in opened.cases("B", "test")} == {".bmp"}


def test_one_png_among_others_keeps_the_layout(draw_root):
    root = draw_root(domains="AB")
    first, *others = sorted(root.glob("Domain1/train/ROIs/image/*.png"))
    for path in others:
        path.rename(path.with_suffix(".jpg"))
    told = Lines()
    opened = open_root(root, progress=told)
    assert [case.image for case in opened.split("A", "train").cases] == [first]
    assert [line.partition(": ")[2].partition(":")[0] for line in told.lines] == ["2 files, matched by no pattern"]


def test_no_data_names_the_three_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"--data ROOT.*\$FUNDUS_SEG_DATA.*data/Fundus.*--data phantom"):
        open_root()


def test_the_variable_then_the_default_folder(draw_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default = draw_root("data/Fundus", domains="AB")
    assert open_root().path.resolve() == default
    given = draw_root("elsewhere", domains="CD")
    monkeypatch.setenv("FUNDUS_SEG_DATA", str(given))
    assert open_root().path == given


def test_phantom_is_drawn_once_into_the_cache(monkeypatch, tmp_path):
    from fundus_seg.data import layout

    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))  # no other test shall meet this phantom
    calls = []

    def draw(folder, *, per_domain, on_case):
        calls.append(folder)
        (folder / "Domain1").mkdir(parents=True)
        (folder / layout.PHANTOM_MARKER).touch()

    monkeypatch.setattr(layout, "make_phantom", draw)
    first, second = open_root("phantom"), open_root("phantom")
    assert first.domains == tuple("ABCD")
    assert calls == []  # not before it is needed
    assert first.split("A", "test").cases == second.split("A", "test").cases == ()
    assert first.phantom
    assert first.name == "phantom"
    assert len(calls) == 1
    assert first.path.parent == cache_folder()


@pytest.mark.parametrize(("domains", "message"), [("A", "only domain A"), ("", "no domain")])
def test_fewer_than_two_domains_are_refused(draw_root, tmp_path, domains, message):
    (tmp_path / "data").mkdir()
    draw_root("data", domains=domains)
    with pytest.raises(DataError, match=message):
        open_root(tmp_path / "data")


def test_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_root(tmp_path / "nowhere")


def test_unknown_domain_offers_those_present(draw_root):
    with pytest.raises(UsageError, match=r"unknown domain 'E'.*A, B"):
        open_root(draw_root(domains="AB")).cases("E", "train")


def test_every_file_without_a_partner_is_listed(draw_root):
    root = draw_root()
    rois = root / "Domain2/train/ROIs"
    (rois / "mask/Btrain0.png").unlink()
    (rois / "image/Btrain2.png").unlink()
    with pytest.raises(DataError) as caught:
        open_root(root).cases("B", "train")
    assert "Btrain0.png: photograph without a mask" in str(caught.value)
    assert "Btrain2.png: mask without a photograph" in str(caught.value)


def test_empty_and_missing_folders_are_named(draw_root):
    root = draw_root()
    for mask in (root / "Domain1/test/ROIs/mask").iterdir():
        mask.unlink()
    with pytest.raises(DataError, match=r"Domain1/test/ROIs/mask: no \*\.png in it"):
        open_root(root).cases("A", "test")
    (root / "Domain1/test/ROIs/mask").rmdir()
    with pytest.raises(DataError, match="Domain1/test/ROIs/mask: no such folder"):
        open_root(root).cases("A", "test")


def test_folders_that_cannot_be_listed_say_why(draw_root, monkeypatch):
    root = draw_root()
    photographs = root / "Domain1/test/ROIs/image"
    for photograph in photographs.iterdir():
        photograph.unlink()
    photographs.rmdir()
    photographs.symlink_to(photographs)
    with pytest.raises(DataError, match=r"Domain1/test/ROIs/image: cannot be listed \(Too many levels of symbolic"):
        open_root(root).cases("A", "test")
    photographs.unlink()
    photographs.mkdir()
    photographs.chmod(0)
    if os.geteuid() == 0:  # root may list anything, so play the refusal
        monkeypatch.setattr(files.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"Domain1/test/ROIs/image: cannot be listed \(Permission denied\)"):
        open_root(root).cases("A", "test")
    photographs.chmod(0o755)


def refuse(folder):
    raise PermissionError(13, "Permission denied", str(folder))


def test_hidden_files_and_folders_are_no_photographs(draw_root):
    root = draw_root()
    photographs = root / "Domain1/train/ROIs/image"
    (photographs / "._Atrain0.png").write_bytes(b"what macOS leaves behind")
    (photographs / "folder.png").mkdir()
    assert len(open_root(root).cases("A", "train")) == 3


def test_every_problem_is_listed_however_many(draw_root):
    root = draw_root(train=40)
    for mask in list((root / "Domain2/train/ROIs/mask").iterdir())[:30]:
        mask.unlink()
    with pytest.raises(DataError) as caught:
        open_root(root).cases("B", "train")
    assert str(caught.value).startswith("30 problems with the files of B/train:\n")
    assert len(caught.value.problems) == 30
    assert {problem.path.parent.name for problem in caught.value.problems} == {"image"}


def test_each_pattern_is_searched_once_however_often_cases_are_asked_for(draw_root, monkeypatch):
    searched = []
    find = files.Pattern.find
    monkeypatch.setattr(files.Pattern, "find", lambda pattern: searched.append(pattern) or find(pattern))
    root = open_root(draw_root())
    for domain in root.domains:
        root.cases(domain, "train")
        root.cases(domain, "test")
    assert len(searched) == len(set(searched)) == 4 * 2 * 2  # domains, splits, photographs and masks


def test_a_phantom_can_be_sent_to_another_process():
    progress = Lines()
    progress.lock = threading.RLock()  # as a terminal has
    root = open_root("phantom", progress=progress)
    assert pickle.loads(pickle.dumps(root)).cases("A", "test") == root.cases("A", "test")


def test_a_phantom_of_another_size_is_another_phantom(tmp_path, monkeypatch):
    """The cache may hold one that an older version drew."""
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path))
    for per_domain in (3, 4):
        monkeypatch.setattr("fundus_seg.data.layout.EMBEDDED_PER_DOMAIN", per_domain)
        root = open_root("phantom")
        assert sum(len(root.cases("A", split)) for split in ("train", "test")) == per_domain
