from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_runs import Lines

from fundus_seg.cache_folder import LEFTOVER_AGE, cache_folder, cache_items, clear_cache, remove
from fundus_seg.config import DataConfig
from fundus_seg.data import cache
from fundus_seg.data.cache import load_resized
from fundus_seg.data.layout import open_root
from fundus_seg.errors import DataError

SMALL = DataConfig(size=32)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))


def entries():
    return sorted(path.name for path in (cache_folder() / "resized").iterdir())


def test_arrays_equal_pillow_s_resize(draw_root):
    cases = open_root(draw_root(size=48)).cases("A", "train")
    split = load_resized(cases, SMALL)
    assert split.names == ("Atrain0", "Atrain1", "Atrain2")
    expected = Image.open(cases[1].image).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(split.images[1], expected)
    grey = np.asarray(Image.open(cases[1].mask).resize((32, 32), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(split.masks[1], [grey <= 200, grey <= 50])
    assert not split.images.flags.writeable


def test_second_load_decodes_nothing(draw_root, monkeypatch):
    cases = open_root(draw_root()).cases("A", "train")
    first = load_resized(cases, SMALL)
    monkeypatch.setattr(cache, "read_sample", None)
    second = load_resized(cases, SMALL)
    assert second.digest == first.digest
    np.testing.assert_array_equal(first.images, second.images)


def test_changed_file_and_changed_option_make_new_entries(draw_root):
    cases = open_root(draw_root()).cases("A", "train")
    first = load_resized(cases, SMALL)
    load_resized(cases, DataConfig(size=32, image_interpolation="bilinear"))
    assert len(entries()) == 2
    Image.new("RGB", (64, 64), "white").save(cases[0].image)
    changed = load_resized(cases, SMALL)
    assert changed.digest != first.digest
    assert (changed.images[0] == 255).all()
    assert len(entries()) == 3


def test_change_that_keeps_size_and_time_is_seen_while_the_file_is_young(draw_root):
    cases = open_root(draw_root()).cases("A", "train")
    first = load_resized(cases, SMALL)
    status = cases[0].image.stat()
    content = bytearray(cases[0].image.read_bytes())
    content[-1] ^= 1
    cases[0].image.write_bytes(content)
    os.utime(cases[0].image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_resized(cases, SMALL).digest != first.digest


def test_hashes_of_settled_files_are_remembered(draw_root, monkeypatch):
    cases = open_root(draw_root()).cases("A", "train")
    for case in cases:
        for path in (case.image, case.mask):
            os.utime(path, (1_000_000_000, 1_000_000_000))
    first = load_resized(cases, SMALL)
    monkeypatch.setattr(cache, "file_digest", None)
    assert load_resized(cases, SMALL).digest == first.digest


def test_a_file_that_changes_while_it_is_read_poisons_nothing(draw_root, monkeypatch):
    cases = open_root(draw_root()).cases("A", "train")
    whole = cases[0].image.read_bytes()
    read = cache.read_sample

    def meddle(case, witness):
        if case == cases[0]:
            Image.new("RGB", (64, 64), "white").save(case.image)
        return read(case, witness)

    monkeypatch.setattr(cache, "read_sample", meddle)
    with pytest.raises(DataError, match="changed while they were read"):
        load_resized(cases, SMALL)
    monkeypatch.undo()
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(cases[0].image.parents[5] / "cache"))
    cases[0].image.write_bytes(whole)
    assert (load_resized(cases, SMALL).images[0] != 255).any()


def test_every_unreadable_file_is_listed_and_nothing_is_kept(draw_root):
    cases = open_root(draw_root()).cases("A", "train")
    cases[0].image.write_bytes(b"")
    Image.new("RGB", (64, 64), "red").save(cases[2].mask)
    with pytest.raises(DataError) as caught:
        load_resized(cases, SMALL)
    assert "2 files cannot be used" in str(caught.value)
    assert "Atrain0.png: not an image" in str(caught.value)
    assert "Atrain2.png: a coloured mask" in str(caught.value)
    assert entries() == []


@pytest.mark.parametrize(("grey", "problem"), [(255, "the disc is empty"), (0, "no rim")])
def test_masks_that_must_not_train_are_marked(draw_root, grey, problem):
    cases = open_root(draw_root()).cases("A", "train")
    mask = np.full((64, 64), 255, dtype=np.uint8)
    mask[20:40, 20:40] = grey
    Image.fromarray(mask).save(cases[1].mask)
    split = load_resized(cases, SMALL)
    assert len(split.problems) == 1
    assert split.problems[0].path == cases[1].mask
    assert split.problems[0].text.startswith(problem)


@pytest.mark.slow
def test_builders_at_once_agree(draw_root, tmp_path):
    root = open_root(draw_root(train=6))
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        digests = pool.starmap(_digest, [(str(root.path), str(tmp_path / "cache"))] * 4)
    assert len(set(digests)) == 1
    assert len(entries()) == 1


def _digest(root, folder):
    os.environ["FUNDUS_SEG_CACHE"] = folder
    split = load_resized(open_root(root).cases("A", "train"), SMALL)
    return split.digest, split.images.tobytes()


BUILDER_THAT_HANGS = """
import sys, time
from fundus_seg.config import DataConfig
from fundus_seg.data import cache
from fundus_seg.data.layout import open_root

def read_sample(case, witness):
    print("reading", end="", flush=True)
    time.sleep(600)

cache.read_sample = read_sample
cache.load_resized(open_root(sys.argv[1]).cases("A", "train"), DataConfig(size=32))
"""


def test_a_killed_builder_does_no_harm_and_is_swept_a_day_later(draw_root):
    root = open_root(draw_root())
    with subprocess.Popen([sys.executable, "-c", BUILDER_THAT_HANGS, root.path], stdout=subprocess.PIPE) as builder:
        begun = builder.stdout.read(len(b"reading"))
        builder.send_signal(signal.SIGKILL)
    assert begun == b"reading"
    (leftover,) = (cache_folder() / "resized").iterdir()
    assert leftover.name.startswith(".")
    assert load_resized(root.cases("A", "train"), SMALL).names == ("Atrain0", "Atrain1", "Atrain2")
    assert leftover.is_dir(), "it could still belong to a builder at work"
    assert sum("killed" in item.what for item in cache_items()) == 1
    long_ago = time.time() - LEFTOVER_AGE - 1
    os.utime(leftover, (long_ago, long_ago))
    load_resized(root.cases("A", "test"), SMALL)
    assert not leftover.exists()
    assert len(entries()) == 2


def test_a_cache_that_cannot_be_written_names_the_variable_in_one_line(draw_root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"the cache cannot be written.*FUNDUS_SEG_CACHE") as caught:
        load_resized(open_root(draw_root()).cases("A", "train"), SMALL)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot be written.*FUNDUS_SEG_CACHE") as caught:
        open_root("phantom").cases("A", "train")
    assert "\n" not in str(caught.value)


def test_a_filled_cache_needs_no_writing(draw_root, monkeypatch):
    cases = open_root(draw_root()).cases("A", "train")
    for case in cases:
        os.utime(case.image, (1_000_000_000, 1_000_000_000))
    first = load_resized(cases, SMALL)
    for item in cache_items():
        if item.what == "hashes of files":
            item.path.unlink()
    (cache_folder() / "hashes").rmdir()
    (cache_folder() / "hashes").touch()  # nothing can be written below it
    assert load_resized(cases, SMALL).digest == first.digest


def test_nothing_is_written_into_the_data_root(draw_root):
    folder = draw_root()
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in folders:
        path.chmod(0o555)
    load_resized(open_root(folder).cases("A", "train"), SMALL)
    for path in folders:
        path.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_file_that_cannot_be_opened_is_listed_with_the_others(draw_root):
    cases = open_root(draw_root()).cases("A", "train")
    cases[0].image.unlink()
    cases[0].image.symlink_to(cases[0].image)
    cases[1].mask.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_resized(cases, SMALL)
    assert "Atrain0.png: cannot be opened" in str(caught.value)
    assert "Atrain1.png: not an image" in str(caught.value)


def test_the_cache_is_listed_and_cleared_and_nothing_else(draw_root):
    load_resized(open_root(draw_root()).cases("A", "train"), SMALL)
    phantom = cache_folder() / "phantom-v0"
    phantom.mkdir()
    (phantom / "picture.png").write_bytes(b"12345")
    foreign = cache_folder() / "thesis.tex"
    foreign.touch()
    shown = {item.path.name: item for item in cache_items()}
    assert (shown["phantom-v0"].what, shown["phantom-v0"].size) == ("the phantom", 5)
    assert shown[entries()[0]].what == "A/train, 3 cases at 32"
    assert shown[entries()[0]].size > 3 * 32 * 32 * 5
    clear_cache()
    assert cache_items() == []
    assert foreign.exists()


FILLS = """
import sys
from fundus_seg.config import DataConfig
from fundus_seg.data.cache import load_resized
from fundus_seg.data.layout import open_root

load_resized(open_root(sys.argv[1]).cases("A", "train"), DataConfig(size=512))
"""


class TestFullDisk:
    """A disk that fills while an entry is built is one error, not a signal, and nothing is left behind."""

    def test_the_place_of_every_byte_is_reserved_before_it_is_written(self, tmp_path):
        array = cache._reserved(tmp_path / "images.npy", (3, 512, 512, 3))
        assert not array.any()
        assert (tmp_path / "images.npy").stat().st_blocks * 512 >= 3 * 512 * 512 * 3

    def test_a_small_disk(self, draw_root, tmp_path, monkeypatch):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
            pytest.skip("may not mount a disk")
        monkeypatch.setenv("FUNDUS_SEG_CACHE", str(disk / "cache"))
        try:
            with pytest.raises(DataError, match=r"the cache cannot be written \(No space left on device\); make room"):
                load_resized(open_root(draw_root()).cases("A", "train"), DataConfig(size=512))
            assert entries() == []
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)

    def test_a_limit_on_the_size_of_files(self, draw_root):
        limited = ["sh", "-c", 'ulimit -f 512; exec "$@"', "sh", sys.executable, "-c", FILLS, str(draw_root())]
        stopped = subprocess.run(limited, capture_output=True, text=True)
        assert stopped.returncode == 1
        assert "the cache cannot be written (File too large); make room" in stopped.stderr
        assert entries() == []


class TestDamage:
    """An entry proves itself; whatever is wrong with it, it is removed, built again, and a line says so."""

    @pytest.mark.parametrize(
        "damage",
        [
            lambda entry: (entry / "cases.json").unlink(),
            lambda entry: (entry / "cases.json").write_text("null"),
            lambda entry: (entry / "cases.json").write_text("[" * 100_000),
            lambda entry: (entry / "cases.json").write_text((entry / "cases.json").read_text().replace("null", '"x"')),
            lambda entry: (entry / "cases.json").write_text('{"what": "A/train", "problems": [null, null, null]}'),
            lambda entry: (entry / "images.npy").unlink(),
            lambda entry: (entry / "images.npy").write_bytes(b""),
            lambda entry: (entry / "masks.npy").write_bytes((entry / "masks.npy").read_bytes()[:-1]),
            lambda entry: zeroed(entry / "images.npy"),
            lambda entry: zeroed(entry / "masks.npy"),
            lambda entry: ((entry / "images.npy").unlink(), (entry / "images.npy").mkdir()),
            lambda entry: (remove(entry), entry.touch()),
            lambda entry: (remove(entry), entry.symlink_to("nowhere")),
        ],
    )
    def test_an_entry(self, draw_root, damage):
        cases = open_root(draw_root()).cases("A", "train")
        first = load_resized(cases, SMALL)
        images, masks = first.images.copy(), first.masks.copy()
        (name,) = entries()
        damage(cache_folder() / "resized" / name)
        told = Lines()
        again = load_resized(cases, SMALL, progress=told)
        np.testing.assert_array_equal(again.images, images)
        np.testing.assert_array_equal(again.masks, masks)
        assert again.problems == ()
        (line,) = told.lines
        assert "a damaged entry of the cache" in line
        assert line.endswith("removed, and built again")
        assert entries() == [name]
        load_resized(cases, SMALL, progress=told)
        assert len(told.lines) == 1

    def test_an_entry_of_an_older_version_is_built_again_quietly(self, draw_root):
        cases = open_root(draw_root()).cases("A", "train")
        load_resized(cases, SMALL)
        (name,) = entries()
        record = cache_folder() / "resized" / name / "cases.json"
        content = cache._unsealed(record.read_text("utf8"))
        del content["odd"]
        record.write_text(cache._sealed(content), "utf8")
        told = Lines()
        assert load_resized(cases, SMALL, progress=told).odd == ()
        assert told.lines == []
        assert cache._unsealed(record.read_text("utf8"))["odd"] == []

    def test_a_disk_that_keeps_nothing_is_given_up(self, draw_root, monkeypatch):
        monkeypatch.setattr(cache, "file_digest", lambda path: "of other bytes")
        with pytest.raises(DataError, match="the disk of the cache does not keep what is written"):
            load_resized(open_root(draw_root()).cases("A", "train"), SMALL)

    @pytest.mark.parametrize("content", ["null", "[]", '{"files": null}', "{", "[" * 100_000, "\x00"])
    def test_the_remembered_digests(self, draw_root, content):
        cases = open_root(draw_root()).cases("A", "train")
        for case in cases:
            for path in (case.image, case.mask):
                os.utime(path, (1_000_000_000, 1_000_000_000))
        digest = load_resized(cases, SMALL).digest
        (memory,) = (cache_folder() / "hashes").iterdir()
        memory.write_text(content)
        assert load_resized(cases, SMALL).digest == digest
        assert memory.read_text() != content


def zeroed(path):
    """Every byte behind the header becomes 0."""
    content = path.read_bytes()
    path.write_bytes(content[:128] + bytes(len(content) - 128))
