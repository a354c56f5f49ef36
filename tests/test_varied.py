"""Eyes that differ in all that eyes, cameras and readers differ in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundus_seg.builtins import BACKGROUND, CUP, RIM
from fundus_seg.data.framing import disc_framing
from fundus_seg.data.layout import open_root
from fundus_seg.errors import UsageError
from fundus_seg.phantom.make import PHANTOM_MARKER, make_phantom
from fundus_seg.phantom.varied import draw_varied

CASES = 12


@pytest.fixture(scope="module")
def cases() -> list[tuple[Any, Any]]:
    return [draw_varied("B", index, 0) for index in range(CASES)]


def test_a_case_depends_on_its_arguments_alone(cases: Any) -> None:
    for index in (3, 0):
        image, mask = draw_varied("B", index, 0)
        np.testing.assert_array_equal(image, cases[index][0])
        np.testing.assert_array_equal(mask, cases[index][1])
    others = [draw_varied(*each)[0] for each in (("A", 0, 0), ("B", 0, 1))]
    assert len({hashlib.sha256(each.tobytes()).hexdigest() for each in (cases[0][0], *others)}) == 3


def test_every_cup_lies_in_its_disc_with_a_rim_around(cases: Any) -> None:
    for image, mask in cases:
        assert image.shape == (*mask.shape, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {CUP, RIM, BACKGROUND}
        padded = np.pad(mask, 1, constant_values=BACKGROUND)
        beside = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        assert not np.any((mask == CUP) & (beside == BACKGROUND))


def test_they_differ_widely(cases: Any) -> None:
    framings = [disc_framing(mask != BACKGROUND) for _, mask in cases]
    ratios = [np.any(mask == CUP, axis=1).sum() / np.any(mask != BACKGROUND, axis=1).sum() for _, mask in cases]
    colours = np.array([image.mean((0, 1)) for image, _ in cases])
    assert max(framings) > 1.4 * min(framings)
    assert max(ratios) > 1.8 * min(ratios)
    assert (colours.max(0) > 1.8 * colours.min(0)).all()


def test_a_folder_of_them_is_a_phantom(tmp_path: Path) -> None:
    made = make_phantom(tmp_path / "eyes", 3, seed=5, varied=True)
    assert json.loads((made / PHANTOM_MARKER).read_text("utf8"))["varied"] is True
    root = open_root(made)
    assert root.phantom
    assert [len(root.split(domain, "train").cases) for domain in root.domains] == [2, 2, 2, 2]
    with pytest.raises(UsageError, match="give frames or varied, not both"):
        make_phantom(tmp_path / "both", 3, frames=True, varied=True)
