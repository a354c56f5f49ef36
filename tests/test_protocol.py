from __future__ import annotations

from fundus_seg.protocol import Scoring, source_half, spacing


def test_digest_changes_with_every_setting():
    changes = [
        {"inference": "native"},
        {"threshold": 0.5},
        {"largest_component": False},
        {"fill_holes": False},
        {"dice_smoothing": 1},
        {"empty_check": "cup"},
        {"empty_distance": 50},
        {"adapt_batch_norms": 0},
        {"anatomical": True},
    ]
    assert {key for change in changes for key in change} == set(Scoring.model_fields)
    digests = {Scoring().digest(), *(Scoring(**change).digest() for change in changes)}
    assert len(digests) == len(changes) + 1


def test_digests_are_those_of_the_evaluations_on_disk():
    assert Scoring().digest() == "2080b6ad"
    assert Scoring(dice_smoothing=1, empty_check="cup").digest() == "8ea744f6"


def test_distances_read_on_a_frame_of_800():
    assert spacing(400, 1600) == (2.0, 0.5)


def test_halves_split_cases_by_name_alone():
    halves = [source_half(f"case-{number}") for number in range(1000)]
    assert halves == [source_half(f"case-{number}") for number in range(1000)]
    assert 440 < halves.count("select") < 560
