"""The built-in augmentations: what they do to a case, that they combine, and that threads change nothing."""

from __future__ import annotations

import re
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from small_runs import killed_in_epoch, settings, weights
from test_batches import split

from fundus_seg import cores
from fundus_seg.builtins import AUGMENTATION_PARTS
from fundus_seg.config import TrainConfig
from fundus_seg.data import transforms
from fundus_seg.data.augment import bigaug, parts
from fundus_seg.data.batches import DomainBatches
from fundus_seg.data.layout import open_root
from fundus_seg.data.transforms import EachCase, augmentation
from fundus_seg.errors import UsageError
from fundus_seg.phantom.make import draw_case
from fundus_seg.seeding import generator
from fundus_seg.training import train

SIZE = 96
WHOLE = "+".join(AUGMENTATION_PARTS)
FACTORS = {"brightness", "contrast", "saturation", "gamma", "scale", "zoom"}
"""Magnitudes that change nothing at 1; the others change nothing at 0."""


@pytest.fixture(scope="module")
def case():
    """A photograph of the phantom and its masks (disc, cup)."""
    image, mask = draw_case("B", 0, 0)
    image, mask = cv2.resize(image, (SIZE, SIZE)), cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    masks = np.stack([mask < 255, mask == 0]).astype(np.uint8)
    image.flags.writeable = masks.flags.writeable = False  # as in the memory map
    return image, masks


def augmented(name, case, number=0):
    augment = augmentation(name, SIZE, seed=0)
    assert isinstance(augment, EachCase)
    return augment.augment(*case, np.random.default_rng([7, number]))


def drawn_batches(augment):
    sources = {"B": split(5), "C": split(3)}
    return DomainBatches(sources, TrainConfig(batch_per_domain=3, augment=augment), seed=4)


class TestEveryPart:
    @pytest.mark.parametrize("name", [*AUGMENTATION_PARTS, WHOLE])
    def test_keeps_shapes_types_and_the_cup_within_the_disc(self, name, case):
        changed = set()
        for number in range(20):
            image, masks = augmented(name, case, number)
            assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
            assert (masks.shape, masks.dtype) == ((2, SIZE, SIZE), np.uint8)
            assert set(np.unique(masks)) <= {0, 1}
            assert not (masks[1] & ~masks[0] & 1).any()
            assert masks[0].any()
            changed.add(image.tobytes())
        assert len(changed) > (1 if name == "flip" else 10)

    @pytest.mark.parametrize("name", ["colour", "geometry", "framing", "quality"])
    def test_is_the_identity_at_strength_0(self, name, case, monkeypatch):
        monkeypatch.setattr(parts, "STRENGTHS", {key: (key in FACTORS,) * 2 for key in parts.STRENGTHS})
        monkeypatch.setattr(parts, "CHANCES", dict.fromkeys(parts.CHANCES, 1))
        for ours, given in zip(augmented(name, case), case, strict=True):
            assert np.array_equal(ours, given)

    def test_is_the_identity_at_strength_0_in_bigaug(self, case, monkeypatch):
        neutral = {key: (key in {"contrast", "scaling"},) * 2 for key in bigaug.RANGES} | {"smoothness": (10, 10)}
        monkeypatch.setattr(bigaug, "RANGES", neutral)
        monkeypatch.setattr(bigaug, "CHANCE", 1.0)
        for ours, given in zip(augmented("bigaug", case), case, strict=True):
            assert np.array_equal(ours, given)

    @pytest.mark.parametrize("name", ["colour", "quality"])
    def test_of_the_camera_moves_no_mask(self, name, case):
        assert all(np.array_equal(augmented(name, case, number)[1], case[1]) for number in range(10))

    def test_draws_the_same_whichever_others_stand_beside_it(self, case, monkeypatch):
        """What is left out of the whole changes nothing else."""
        seen: dict[str, set[float]] = {}

        def find(kind, name, table):
            def augment(image, masks, rng):
                seen.setdefault(name, set()).add(rng.random())
                return image, masks

            return lambda size, seed: EachCase(augment)

        monkeypatch.setattr(transforms, "find", find)
        for name in (WHOLE, "flip+quality", *AUGMENTATION_PARTS):
            augmented(name, case)
        assert [len(numbers) for numbers in seen.values()] == [1] * len(AUGMENTATION_PARTS)
        assert len(set.union(*seen.values())) == len(AUGMENTATION_PARTS)


class TestNames:
    @pytest.mark.parametrize("name", ["flip+colour", "colour+flip", " flip + colour"])
    def test_combine_in_the_table_s_order(self, name):
        assert settings(f"train.augment={name}").train.augment == "flip+colour"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("colour+flop", "unknown part of an augmentation 'flop': did you mean 'flip'"),
            ("colour+", "unknown part of an augmentation ''"),
            ("scale-crop+flip", "unknown part of an augmentation 'scale-crop'"),
            ("flip+mirror:left_right", "unknown part of an augmentation 'mirror:left_right'"),
            ("flip+colour+flip", "names a part twice"),
            ("color", "unknown augmentation 'color': did you mean 'colour'"),
        ],
    )
    def test_that_do_not_combine_are_refused(self, name, message):
        with pytest.raises(UsageError, match=re.escape(message)):
            settings(f"train.augment={name}")
        with pytest.raises(UsageError, match=re.escape(message)):
            augmentation(name, SIZE, seed=0)

    def test_of_methods_and_losses_do_not_combine(self):
        with pytest.raises(UsageError, match=r"unknown method 'vrex\+mixstyle'"):
            settings("train.method=vrex+mixstyle")


class TestThreads:
    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_change_no_bit(self, threads, monkeypatch):
        """Each case is what its place says: it is made here alone, from its own generator."""
        monkeypatch.setattr(cores, "core_count", lambda: threads)
        batches, plain = drawn_batches(WHOLE), drawn_batches("none")
        seed = int(generator(4, 2, "augment").integers(2**32))
        alone = augmentation(WHOLE, 32, seed)
        steps = list(zip(batches.epoch(2), plain.epoch(2), strict=True))
        assert len(steps) == batches.steps == 2
        for step, (batch, given) in enumerate(steps):
            assert torch.equal(batch.domains, given.domains)
            for place in range(6):
                image, masks = given.images[place].permute(1, 2, 0).numpy(), given.masks[place].numpy()
                image, masks = alone.augment(image, masks, np.random.default_rng([seed, step, place]))
                assert np.array_equal(batch.images[place], image.transpose(2, 0, 1))
                assert np.array_equal(batch.masks[place], masks)

    def test_end_with_the_epoch(self):
        assert len(list(drawn_batches("colour").epoch(0))) == 2
        assert not helpers()

    def test_end_when_a_step_is_interrupted(self):
        with pytest.raises(KeyboardInterrupt):
            for _ in drawn_batches("colour").epoch(0):
                assert helpers()
                raise KeyboardInterrupt
        assert not helpers()

    def test_end_when_a_plugin_raises_and_its_error_is_told(self, monkeypatch, tmp_path, draw_root):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        (tmp_path / "failing.py").write_text(
            "from fundus_seg.data.transforms import EachCase\n"
            "def idea(size, seed): return EachCase(lambda image, masks, rng: 1 / 0)\n"
            "def shapes(size, seed): return EachCase(lambda image, masks, rng: (image, masks[:1]))\n"
        )
        for name, message in (
            ("idea", r"raises ZeroDivisionError at \S+failing\.py:2: "),
            ("shapes", r"gives \(64, 64, 3\) uint8 and \(1, 64, 64\) uint8: return image and masks as"),
        ):
            with pytest.raises(UsageError, match=rf"^failing:{name}: {message}"):
                train(settings(f"train.augment=failing:{name}"), open_root(draw_root(name)), tmp_path / "runs")
            assert not helpers()

    def test_end_when_the_loss_raises(self, monkeypatch, tmp_path, draw_root):
        def fail(*_):
            assert helpers()
            raise KeyboardInterrupt

        monkeypatch.setattr("fundus_seg.training.fit.find_loss", lambda name: fail)
        with pytest.raises(KeyboardInterrupt):
            train(settings("train.augment=flip"), open_root(draw_root()), tmp_path / "runs")
        assert not helpers()


def test_a_run_that_was_interrupted_goes_on_to_the_same_bits(draw_root, tmp_path, monkeypatch):
    root, asked = open_root(draw_root()), settings(f"train.augment={WHOLE}")
    whole = train(asked, root, tmp_path / "whole")
    with killed_in_epoch(2):
        train(asked, root, tmp_path / "parts")
    monkeypatch.setattr(cores, "core_count", lambda: 3)
    parts = train(asked, root, tmp_path / "parts")
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("map_ahead")]
