from __future__ import annotations

import cv2
import numpy as np
import pytest

from fundus_seg.data import duplicates
from fundus_seg.data.duplicates import SAME_PICTURE, SIDE, find_copies, fingerprint
from fundus_seg.phantom.make import draw_case


@pytest.fixture(scope="module")
def photographs():
    return [draw_case(domain, index, seed=0)[0] for domain in "ABCD" for index in range(3)]


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


COPIES = {
    "JPEG": lambda image: jpeg(image, 30),
    "smaller": lambda image: cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA),
    "another aspect": lambda image: cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC),
    "brighter": lambda image: np.clip(image * 1.4, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 0.7).astype(np.uint8),
    "cut by 2 %": lambda image: image[16:-16, 16:-16],
    "by phone": lambda image: jpeg(cv2.resize(np.clip(image * 1.15, 0, 255).astype(np.uint8), (300, 300)), 60),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_a_copy_correlates_with_its_original(photographs, change):
    for photograph in photographs[::4]:
        assert fingerprint(photograph) @ fingerprint(change(photograph)) > SAME_PICTURE + 0.05


def test_unrelated_eyes_do_not(photographs):
    prints = np.stack([fingerprint(photograph) for photograph in photographs])
    np.testing.assert_allclose(np.linalg.norm(prints, axis=1), 1.0, rtol=1e-5)
    assert find_copies(prints, range(len(prints))) == []
    assert (prints @ prints.T - np.eye(len(prints))).max() < SAME_PICTURE - 0.2


def test_a_mirrored_copy_is_found_and_named(photographs):
    prints = np.stack([fingerprint(photographs[0]), fingerprint(photographs[0][:, ::-1])])
    (copy,) = find_copies(prints, "ab")
    assert (copy.first, copy.second, copy.mirrored) == (0, 1, True)
    assert copy.correlation == pytest.approx(1.0, abs=1e-4)


def test_a_flat_photograph_is_no_copy_of_another():
    flat = fingerprint(np.full((50, 60, 3), 7, np.uint8))
    assert not flat.any()
    assert find_copies(np.stack([flat, flat]), "ab") == []


@pytest.mark.parametrize("block", [1, 2, 100])
def test_each_copy_is_reported_once_beside_the_worst_place(monkeypatch, block):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    one, other = np.random.default_rng(0).standard_normal((2, SIDE * SIDE)).astype(np.float32)
    prints = np.stack([vector / np.linalg.norm(vector) for vector in (one, other, one, one, other)])
    copies = find_copies(prints, ["A train", "A train", "A test", "A test", "A train"])
    # 3 has an equal at 2 in its own split, but the one at 0 is the leak; 4 has one in its own split only.
    assert [(copy.second, copy.first) for copy in copies] == [(2, 0), (3, 0), (4, 1)]
    assert not any(copy.mirrored for copy in copies)
