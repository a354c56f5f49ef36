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
from fundus_seg.data.augment.operations import blur, gamma, grain, jpeg, sharpen
from fundus_seg.data.batches import DomainBatches
from fundus_seg.data.layout import open_root
from fundus_seg.data.transforms import EachCase, augmentation
from fundus_seg.errors import UsageError
from fundus_seg.ops import translation_variant_conv2d
from fundus_seg.ops.tvconv import TVConv2d
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


class TestOperations:
    def test_gamma_keeps_black_and_white_and_lifts_the_shadows_below_1(self, case):
        greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        assert np.array_equal(gamma(greys, 2.0), np.rint(greys.astype(float) ** 2 / 255))
        assert (gamma(greys, 0.5) >= greys).all()
        assert np.array_equal(gamma(greys, 1.0), greys)

    def test_blur_and_sharpening_are_opposite(self, case):
        image = case[0].astype(float)
        soft, sharp = blur(case[0], 2.0).astype(float), sharpen(case[0], 1.0, 2.0).astype(float)
        assert soft.std() < image.std() < sharp.std()
        inside = (sharp > 0) & (sharp < 255)
        assert np.abs(sharp - (2 * image - soft))[inside].max() <= 0.5

    def test_grain_has_the_standard_deviation_and_repeats(self):
        grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
        noisy = grain(grey, 7.0, np.random.default_rng(0))
        assert np.array_equal(noisy, grain(grey, 7.0, np.random.default_rng(0)))
        assert abs(noisy.astype(float).std() - 7) < 0.2
        assert np.abs(noisy.mean(axis=(0, 1)) - 128).max() < 0.5

    def test_jpeg_costs_blue_detail_before_red(self):
        """Red weighs more in the luminance of a JPEG file than blue does, whose detail is lost with the chroma."""
        lost = []
        for channel in (0, 2):
            stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
            stripes[:, ::2, channel] = 200
            kept = jpeg(stripes, 30).astype(float)[..., channel]
            lost.append(200 - (kept[:, ::2].mean() - kept[:, 1::2].mean()))
        assert lost[0] < lost[1]


class TestMoves:
    def test_geometry_brings_in_black_and_background(self, case, monkeypatch):
        monkeypatch.setattr(parts, "CHANCES", {"geometry": 1})
        white, full = np.full_like(case[0], 200), np.ones_like(case[1])
        for number in range(10):
            image, masks = augmented("geometry", (white, full), number)
            assert (image[masks[0] == 0] < 200).all()
            assert np.mean((image[..., 0] > 100) == masks[0]) > 0.99
            assert 0.7 < masks[0].mean() < 1

    def test_framing_changes_the_disc_s_share_by_the_stated_factor_about_its_centre(self, case, monkeypatch):
        monkeypatch.setattr(parts, "CHANCES", {"framing": 1})
        factors = []
        for number in range(60):
            masks = augmented("framing", case, number)[1]
            (top, left), (bottom, right) = corners(case[1][0])
            (new_top, new_left), (new_bottom, new_right) = corners(masks[0])
            factors.append((new_bottom - new_top + 1) / (bottom - top + 1))
            assert abs((new_top + new_bottom) - (top + bottom)) <= 2
            assert abs((new_left + new_right) - (left + right)) <= 2
        least, most = parts.STRENGTHS["zoom"]
        assert least - 0.03 < min(factors) < 0.85
        assert 1.2 < max(factors) < most + 0.03

    def test_framing_keeps_a_large_disc_whole_and_mirrors_none_of_it(self, monkeypatch):
        monkeypatch.setattr(parts, "CHANCES", {"framing": 1})
        monkeypatch.setitem(parts.STRENGTHS, "zoom", (0.5, 2.0))
        rows, columns = np.mgrid[:SIZE, :SIZE]
        disc = np.hypot(rows - 44, columns - 48) < 40
        case = np.where(disc[..., None], 250, 60).repeat(3, 2).astype(np.uint8), np.stack([disc, disc]).astype(np.uint8)
        areas = set()
        for number in range(30):
            image, masks = augmented("framing", case, number)
            assert cv2.connectedComponents(masks[0])[0] == 2
            assert np.mean((image[..., 0] > 155) == masks[0]) > 0.98
            (top, left), (bottom, right) = corners(masks[0])
            assert abs((bottom - top) - (right - left)) <= 2  # nothing is cut off
            areas.add(int(masks[0].sum()))
        assert len(areas) > 5

    def test_framing_brings_in_black_beside_the_field_of_view(self, case, monkeypatch):
        monkeypatch.setattr(parts, "CHANCES", {"framing": 1})
        monkeypatch.setitem(parts.STRENGTHS, "zoom", (0.8, 0.8))
        image = case[0].copy()
        image[:, :4] = 0
        framed = augmented("framing", (image, case[1]))[0]
        assert (framed[:, :10] == 0).all()
        assert framed[:, -10:].min(axis=(0, 1)).max() > 0

    def test_framing_without_a_disc_zooms_about_the_middle(self, case):
        image, masks = augmented("framing", (case[0], np.zeros_like(case[1])))
        assert image.shape == case[0].shape and not masks.any()

    def test_flip_mirrors_half_of_the_cases_with_their_masks(self, case):
        flipped = 0
        for number in range(40):
            image, masks = augmented("flip", case, number)
            mirrored = not np.array_equal(image, case[0])
            flipped += mirrored
            assert np.array_equal(image, case[0][:, ::-1] if mirrored else case[0])
            assert np.array_equal(masks, case[1][..., ::-1] if mirrored else case[1])
        assert 10 < flipped < 30


class TestBigAug:
    """Each operation alone, at one magnitude."""

    @pytest.fixture
    def only(self, case, monkeypatch):
        def apply(name, magnitude, given=case):
            neutral = {key: (key in {"contrast", "scaling"},) * 2 for key in bigaug.RANGES} | {"smoothness": (11, 11)}
            monkeypatch.setattr(bigaug, "RANGES", neutral | {name: (magnitude, magnitude)})
            monkeypatch.setattr(bigaug, "CHANCE", 1.0)
            return augmented("bigaug", given)

        return apply

    def test_sharpness(self, only, case):
        sharp, soft = only("sharpness", 10.0)[0].astype(float), blur(case[0], 0.5).astype(float)
        expected = np.clip(11.0 * case[0] - 10.0 * soft, 0, 255)
        assert np.abs(sharp - expected).max() <= 0.5

    def test_blurriness(self, only, case):
        assert np.array_equal(only("blurriness", 1.5)[0], blur(case[0], 1.5))

    def test_noise_is_a_share_of_the_photograph_s_own_deviation(self, only):
        rng = np.random.default_rng(0)
        grey = np.clip(rng.normal(128, 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        added = only("noise", 0.5, (grey, np.zeros((2, SIZE, SIZE), np.uint8)))[0].astype(float) - grey
        assert abs(added.std() - 0.5 * grey.std()) < 0.2

    def test_brightness(self, only, case):
        assert np.abs(only("brightness", 0.1)[0] - np.clip(case[0] + 25.5, 0, 255)).max() <= 1

    def test_contrast(self, only, case):
        assert np.array_equal(only("contrast", 4.5)[0], gamma(case[0], 4.5))

    def test_perturbation(self, only, case):
        assert np.abs(only("perturbation", -0.1)[0] - np.clip(0.9 * case[0] - 25.5, 0, 255)).max() <= 1

    def test_rotation(self, only, case):
        image, masks = only("rotation", 90.0)
        turns = [k for k in (1, 3) if np.array_equal(masks, np.rot90(case[1], k, axes=(1, 2)))]
        assert len(turns) == 1
        assert np.array_equal(image, np.rot90(case[0], turns[0]))

    def test_scaling(self, only, case):
        image, masks = only("scaling", 0.5)
        assert abs(masks[0].sum() / case[1][0].sum() - 0.25) < 0.02
        assert not image[: SIZE // 5].any()

    def test_deformation(self, only):
        """A displaced ramp shows the displacement: smooth, of the stated size, and other in each place."""
        ramp = np.arange(SIZE, dtype=np.uint8)[None, :, None].repeat(SIZE, 0).repeat(3, 2)
        moved = only("deformation", 160.0, (ramp, np.zeros((2, SIZE, SIZE), np.uint8)))[0].astype(float) - ramp
        middle = moved[20:-20, 20:-20, 0]
        assert 0.5 < middle.std() < 5
        assert np.abs(np.diff(middle, axis=0)).max() <= 2


def test_a_mirrored_case_meets_the_kernels_of_tvconv_where_they_are(network):
    """Flips mirror photographs and masks alone; the operator is told nothing of them."""
    (operator, *_) = (module for module in network.modules() if isinstance(module, TVConv2d))
    with torch.no_grad():
        kernel = operator.kernel()
        features = torch.rand(1, kernel.shape[0], *kernel.shape[2:])
        mirrored = operator(features.flip(3))
        assert torch.allclose(mirrored, translation_variant_conv2d(features.flip(3), kernel))
        assert not torch.allclose(mirrored.flip(3), operator(features))


def corners(mask):
    places = np.argwhere(mask)
    return places.min(0), places.max(0)


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

    def test_may_write_into_what_they_are_given(self, monkeypatch):
        def blackened(image, masks, rng):
            image[:], masks[:] = 0, 1
            return image, masks

        monkeypatch.setattr("fundus_seg.data.batches.augmentation", lambda *_, **__: EachCase(blackened))
        batches = drawn_batches("flip")
        assert all(not batch.images.any() and batch.masks.all() for batch in batches.epoch(0))
        assert all(cases[1:].all() for cases in batches._images)
        assert not any(cases.any() for cases in batches._masks)

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
