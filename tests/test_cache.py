from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
from PIL import Image

from fundus_seg.config import DataConfig
from fundus_seg.data import cache
from fundus_seg.data.cache import load_resized
from fundus_seg.data.layout import cache_folder, open_root
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
    assert f"Atrain1.png: {problem}" in split.problems[0]


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
