from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import evaluation_of, identity, settings

from fundus_seg.data.layout import open_root
from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import distances, overlaps
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.anatomical import anatomical_table
from fundus_seg.training import train


def evaluation(dsc, *, seed=0, **protocol):
    """Scores with these values of Dice for the disc, half of them for the cup, a value a case."""
    rows = [
        {"structure": structure, "domain": "A", "case": str(case), "truth_pixels": 10,
         **dict.fromkeys(overlaps(), share * value), **dict.fromkeys(distances(), 1.0)}
        for case, value in enumerate(dsc)
        for structure, share in (("disc", 1), ("cup", 0.5))
    ]  # fmt: skip
    return evaluation_of(rows, identity(seed=seed), protocol=Scoring(**protocol))


def test_scores_without_and_with_it_stand_side_by_side():
    pairs = [
        (evaluation([0.6, 0.8], seed=seed), evaluation([0.7, 0.8 + gain], anatomical=True, seed=seed))
        for seed, gain in enumerate((0.0, 0.02))
    ]
    report = anatomical_table(pairs, ["dsc"])
    assert report.layout.rows[:3] == (
        ("DSC [%]", "disc", "A", "as predicted", "70.00 ± 0.00"),
        ("DSC [%]", "disc", "A", "anatomical", "75.50 ± 0.71"),
        ("DSC [%]", "disc", "A", "difference", "5.50 ± 0.71"),
    )
    assert report.frame["difference"].tolist() == pytest.approx([5, 2.5, 6, 3])


@pytest.mark.parametrize("other", [{"anatomical": True, "threshold": 0.5}, {}])
def test_scores_that_differ_in_more_are_refused(other):
    with pytest.raises(ProtocolError, match="not the anatomical scores of"):
        anatomical_table([(evaluation([0.5]), evaluation([0.5], **other))])


def test_runs_are_scored_both_ways(draw_root, tmp_path):
    root = open_root(draw_root("data"))
    run = train(settings("train.epochs=1"), root, tmp_path / "runs")
    found = evaluate_runs([Path(run.path)], with_anatomical=True)
    ((plain, made),) = found.anatomical
    assert plain.path == found.evaluations[0].path != made.path
    assert made.meta.protocol.anatomical and not plain.meta.protocol.anatomical
    assert len(anatomical_table(found.anatomical, ["dsc"]).frame) == 2
