"""Photographs drawn by hand, whose measures are arithmetic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fundus_seg.metrics.photograph import (
    SIDE,
    difference,
    field_of_view,
    ground_around,
    lab,
    photograph_measures,
    ring_around,
    sharpness,
    unevenness,
)

EVERYWHERE = np.ones((SIDE, SIDE), bool)
Y, X = np.mgrid[:SIDE, :SIDE] / (SIDE / 2) - 1
"""Rows and columns from -1 to 1."""


def eye(disc_radius=0.5, cup_radius=0.25, ground=(100, 60, 40), rim=(180, 120, 80), cup=(220, 200, 160)):
    """A photograph (SIDE, SIDE, 3) of three flat colours and its masks."""
    masks = np.stack([np.hypot(X, Y) < disc_radius, np.hypot(X, Y) < cup_radius])
    regions = [mask[..., None] for mask in masks[::-1]]
    return np.select(regions, [np.array(cup), np.array(rim)], np.array(ground)).astype(np.uint8), masks


def test_lab_of_known_colours():
    """White, pure red and black of sRGB under D65; 118 is 18.1 % of white's light: 116 · 0.181^(1/3) - 16 = 49.6."""
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 0, 0], [118, 118, 118]]], np.uint8)
    assert lab(colours)[0, :3] == pytest.approx(np.array([[100, 0, 0], [53.24, 80.09, 67.20], [0, 0, 0]]), abs=0.1)
    assert lab(colours)[0, 3] == pytest.approx([49.6, 0, 0], abs=0.2)  # OpenCV interpolates


def test_the_field_of_view_leaves_the_dark_frame_and_its_edge_out():
    image = np.full((10, 12, 3), 15, np.uint8)
    image[2:9, 3:11, 0] = 16
    expected = np.zeros((10, 12), bool)
    expected[3:8, 4:10] = True
    assert np.array_equal(field_of_view(image), expected)
    assert field_of_view(np.full((5, 5, 3), 200, np.uint8)).sum() == 9  # within the border of the frame


def test_sharpness_of_a_chequerboard():
    """±1 with four neighbours of the other sign: the Laplacian is ∓8, its SD 8; of a ramp it is 0."""
    board = ((np.indices((SIDE, SIDE)).sum(axis=0) % 2) * 2 - 1).astype(np.float32)
    inner = np.zeros((SIDE, SIDE), bool)
    inner[1:-1, 1:-1] = True
    assert sharpness(board, inner) == pytest.approx(8)
    assert sharpness((50 + 10 * X).astype(np.float32), inner) == pytest.approx(0, abs=1e-3)
    assert np.isnan(sharpness(board, ~EVERYWHERE))


def test_unevenness_is_the_sd_of_the_shading_and_blind_to_vessels_and_disc():
    """A ramp from -10 to 10 has SD 10 / √3; 6 x² + y, with x² of variance 4/45 and y of 1/3, has √(36·4/45 + 1/3)."""
    assert unevenness((50 + 10 * X).astype(np.float32), EVERYWHERE) == pytest.approx(10 / np.sqrt(3), rel=1e-3)
    shaded = 50 + 6 * X**2 + Y
    expected = np.sqrt(36 * 4 / 45 + 1 / 3)
    assert unevenness(shaded.astype(np.float32), EVERYWHERE) == pytest.approx(expected, rel=1e-2)
    stripes = 5 * (np.arange(SIDE) % 2)
    assert unevenness((50.0 + stripes + 0 * Y).astype(np.float32), EVERYWHERE) == pytest.approx(0, abs=0.1)
    disc = np.hypot(X, Y) < 0.5
    assert unevenness((50 + 30 * disc).astype(np.float32), ground_around(disc, EVERYWHERE)) == pytest.approx(
        0, abs=1e-3
    )
    assert np.isnan(unevenness(shaded.astype(np.float32), ~EVERYWHERE))


def test_ring_and_ground_keep_a_margin():
    disc = np.hypot(X, Y) < 0.5  # a radius of 64 pixels; margins are 8
    from_centre = np.hypot(X, Y)[ring_around(disc, EVERYWHERE)] * SIDE / 2
    assert (from_centre.min(), from_centre.max()) == pytest.approx((64 + 8, 64 + 32), abs=1.5)
    ground = ground_around(disc, EVERYWHERE)
    assert not (ground & disc).any()
    assert (ground | ~ring_around(disc, EVERYWHERE)).all()


def test_difference_of_means():
    plane, left = np.array([[1, 3, 10, 20]], np.float32), np.array([[True, True, False, False]])
    assert difference(plane, left, ~left) == -13
    assert np.isnan(difference(plane, left, ~(left | ~left)))


def test_measures_of_three_flat_colours():
    image, masks = eye()
    measures = photograph_measures(image, masks)
    (ground, rim, cup), _, _ = lab(np.array([[[100, 60, 40], [180, 120, 80], [220, 200, 160]]], np.uint8))[0].T
    assert measures["disc_contrast"] == pytest.approx(lab(image)[masks[0], 0].mean() - ground, abs=1e-3)
    assert measures["cup_contrast"] == pytest.approx(cup - rim, abs=1e-3)
    inner = image[1:-1, 1:-1].reshape(-1, 3)
    assert [measures[name] for name in ("red", "green", "blue")] == pytest.approx(inner.mean(axis=0))
    assert [measures[f"{name}_sd"] for name in ("red", "green", "blue")] == pytest.approx(inner.std(axis=0))
    assert measures["lightness_sd"] == pytest.approx(lab(image)[1:-1, 1:-1, 0].std(), rel=1e-4)
    assert measures["unevenness"] == pytest.approx(0, abs=1e-3)


def test_twice_the_size_measures_the_same():
    image, masks = eye()
    large = photograph_measures(image.repeat(2, axis=0).repeat(2, axis=1), masks.repeat(2, axis=1).repeat(2, axis=2))
    assert large == pytest.approx(photograph_measures(image, masks))


def test_blur_lowers_sharpness_and_little_else():
    image, masks = eye()
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    sharp, soft = (photograph_measures(each, masks) for each in (noisy, cv2.GaussianBlur(noisy, (0, 0), 2)))
    assert soft["sharpness"] < 0.5 * sharp["sharpness"]
    assert soft["lightness"] == pytest.approx(sharp["lightness"], rel=0.02)
    assert soft["disc_contrast"] == pytest.approx(sharp["disc_contrast"], rel=0.05)


def test_what_is_not_there_is_not_a_number():
    image, masks = eye()
    measures = photograph_measures(image, np.zeros_like(masks))
    assert {name for name, value in measures.items() if np.isnan(value)} == {"disc_contrast", "cup_contrast"}
    dark = photograph_measures(np.zeros_like(image), masks)
    assert all(np.isnan(value) for value in dark.values())
