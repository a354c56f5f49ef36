from __future__ import annotations

import numpy as np
import pytest
from drawn_masks import coded, eye, pairs_of, save
from small_runs import Lines

from fundus_seg.data.coding import DOFE, LABELS, Coding, grey
from fundus_seg.data.domain_file import read_coding
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.data.shown import recognised
from fundus_seg.errors import DataError, UsageError
from fundus_seg.evaluation.external import score_masks


def test_a_coding_that_masks_do_not_show_must_be_given(truth, tmp_path):
    for number in range(3):
        save(tmp_path / "pred" / f"eye{number}.png", coded(eye(number), 0, 1, 1))
    with pytest.raises(DataError, match=r"no mask shows a cup surrounded by its rim, .*--pred-coding labels"):
        pairs_of(tmp_path / "pred", truth)
    pairs = pairs_of(tmp_path / "pred", truth, prediction_coding=LABELS)
    told = Lines()
    assert score_masks(pairs, progress=told).cases["prediction_pixels"].tolist() == [400, 0] * 3
    assert told.lines == ["no prediction holds a cup: its row counts them as missed"]
    save(tmp_path / "pred" / "eye1.png", coded(eye(1), 0, 1, 2))
    save(tmp_path / "pred" / "eye2.png", coded(eye(2), 0, 2, 1))
    with pytest.raises(DataError, match=r"not clear: cup 2, rim 1, background 0 in .*eye1\.png, cup 1"):
        pairs_of(tmp_path / "pred", truth)


def test_inverted_binary_masks_are_refused(truth, tmp_path):
    for number in range(3):
        for structure, mask in zip(("od", "oc"), eye(number), strict=True):
            save(tmp_path / "pred" / structure / f"eye{number}.png", np.uint8(255) * ~mask)
    save(tmp_path / "pred/oc/eye2.png", np.uint8(255) * eye(2)[1])
    places = [str(tmp_path / "pred" / structure) for structure in ("od", "oc")]
    with pytest.raises(DataError) as caught:
        pair_masks(places, [str(truth)])
    for place, inverted, problem in zip(places, (3, 2), caught.value.problems, strict=True):
        assert str(problem) == (
            f"{place}: white in the frame's corners in {inverted} of 3 binary masks, and white is inside; "
            "invert the files to white on black"
        )
    with pytest.raises(DataError, match="pred/od: white in the frame's corners"):
        pair_masks([str(truth)], places)


def test_binary_masks_are_not_inverted_where_the_disc_fills_the_frame_or_is_missing(truth, tmp_path):
    rows, columns = np.mgrid[:40, :40] - 19.5
    for number in range(3):
        save(tmp_path / "od" / f"eye{number}.png", np.uint8(255) * (np.hypot(rows, columns) < 23))
        save(tmp_path / "oc" / f"eye{number}.png", np.zeros((40, 40), dtype=np.uint8))
    assert len(pair_masks([str(tmp_path / "od"), str(tmp_path / "oc")], [str(truth)]).names) == 3


def leaving():
    """A cup that leaves its disc on one side: it borders on the background along 25 pixels, the rim along 22."""
    masks = np.zeros((2, 40, 40), dtype=bool)
    masks[0, 15:25, 5:16] = True
    masks[1, 14:26, 9:25] = True
    masks[0] |= masks[1]
    return masks


def test_a_cup_that_leaves_its_disc_says_nothing_about_the_coding(truth, tmp_path):
    save(tmp_path / "pred" / "eye0.png", coded(leaving(), 0, 1, 2))
    with pytest.raises(DataError, match=r"pred: no mask shows a cup surrounded by its rim"):
        pairs_of(tmp_path / "pred", truth)
    save(tmp_path / "labels" / "eye0.png", coded(eye(), 0, 1, 2))
    assert pairs_of(tmp_path / "pred", tmp_path / "labels").predictions.annotation.coding == LABELS
    save(tmp_path / "pred" / "eye1.png", coded(eye(), 0, 1, 2))
    assert pairs_of(tmp_path / "pred", truth).predictions.annotation.coding == LABELS


def test_the_same_colours_in_another_order_are_refused(truth, tmp_path):
    for number in range(3):
        save(tmp_path / "labels" / f"eye{number}.png", coded(eye(number), 0, 1, 2))
        save(tmp_path / "swapped" / f"eye{number}.png", coded(eye(number), 0, 2, 1))
    swapped = Coding(grey(0), grey(2), grey(1))
    for codings in ({}, {"prediction_coding": swapped}, {"truth_coding": LABELS}):
        with pytest.raises(DataError) as caught:
            pairs_of(tmp_path / "swapped", tmp_path / "labels", **codings)
        assert str(caught.value) == (
            f"{tmp_path}/swapped: cup 1, rim 2, background 0 by what they show, but {tmp_path}/labels has the same "
            "colours as cup 2, rim 1, background 0; say which they are with --pred-coding and --truth-coding"
        )
    both = pairs_of(tmp_path / "swapped", tmp_path / "labels", prediction_coding=swapped, truth_coding=LABELS)
    assert score_masks(both).cases["dsc"].tolist() == [1] * 6


def test_only_files_of_both_sides_say_how_they_are_coded(truth, tmp_path):
    save(tmp_path / "pred" / "another.png", coded(eye(), 0, 2, 1))
    save(tmp_path / "pred" / "eye0.png", coded(eye(), 0, 1, 2))
    assert pairs_of(tmp_path / "pred", truth).predictions.annotation.coding == LABELS


def test_background_is_in_the_corners_of_a_tight_crop():
    rows, columns = np.mgrid[:40, :40] - 19.5
    radius = np.hypot(rows, columns)
    for colours in ((0, 1, 2), (0, 2, 1), (255, 128, 0)):
        crop = coded(np.stack([radius < 23, radius < 12]), *colours)
        assert recognised(np.repeat(crop[..., None], 3, axis=2)).colours == tuple(map(grey, colours))


def test_recognised_codings():
    grey_to_rgb = [
        np.repeat(coded(eye(), *of)[..., None], 3, axis=2) for of in ((255, 128, 0), (0, 1, 2), (0, 127, 255))
    ]
    assert [recognised(pixels) for pixels in grey_to_rgb] == [DOFE, LABELS, Coding(grey(0), grey(127), grey(255))]
    assert recognised(np.zeros((8, 8, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(
    ("text", "coding"), [("dofe", DOFE), ("labels", LABELS), ("{cup: 2, rim: 1, background: 0}", LABELS)]
)
def test_codings_are_written_as_in_a_domain_file(text, coding):
    assert read_coding(text) == coding


@pytest.mark.parametrize("text", ["", "dof", "{cup: 2", "{cup: 2, rim: 2, background: 0}", "[0, 1, 2]", "{cup: 300}"])
def test_what_is_no_coding(text):
    with pytest.raises(UsageError, match="is not a coding: write dofe, labels, or"):
        read_coding(text)
