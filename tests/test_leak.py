"""`evaluate --selection all`: a column for each selection, and what the leaking one would seem to gain."""

from __future__ import annotations

import numpy as np
import pytest
from small_runs import Lines, evaluation_of, identity, settings

from fundus_seg.data.layout import open_root
from fundus_seg.errors import ProtocolError, RunError
from fundus_seg.evaluation.metric_table import distances, overlaps
from fundus_seg.evaluation.runs import checkpoints_of, evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.protocol import source_half
from fundus_seg.reporting.frames import RUN_FIELDS
from fundus_seg.reporting.in_domain import domain_gap_table, domain_gaps
from fundus_seg.reporting.leak import ORACLE, SOURCE_VALIDATION, leak_table
from fundus_seg.reporting.tables import score_table
from fundus_seg.statistics.intervals import bootstrap_interval
from fundus_seg.training import train


def evaluation(
    dsc, *, selection=SOURCE_VALIDATION, holdout="A", seed=0, operator="tvconv", domains=None, scored="holdout"
):
    """Scores with the same Dice (a value a case) for disc and cup."""
    domains = domains or [holdout] * len(dsc)
    rows = [
        {"structure": structure, "domain": domain, "case": str(case), "truth_pixels": 10,
         **dict.fromkeys(overlaps(), value), **dict.fromkeys(distances(), 1.0)}
        for case, (value, domain) in enumerate(zip(dsc, domains, strict=True))
        for structure in ("disc", "cup")
    ]  # fmt: skip
    run = identity(operator=operator, holdout=holdout, seed=seed)
    checkpoint = "oracle" if selection == ORACLE else "best"
    return evaluation_of(rows, run, selection=selection, checkpoint=checkpoint, scored=scored)


def pair(honest, gain, **run):
    return [evaluation(honest, **run), evaluation(np.asarray(honest) + gain, selection=ORACLE, **run)]


def test_the_meter_is_the_paired_difference_with_its_interval():
    """Gains of 1, 2 and 3 points in three runs of A, of 2 in those of B: 2 over all, and no other column takes part."""
    cases = [0.5, 0.7, 0.9]
    runs = [each for seed in range(3) for each in pair(cases, 0.01 * (seed + 1), seed=seed)]
    runs += [each for seed in range(3) for each in pair(cases, 0.02, seed=seed, holdout="B")]
    table = leak_table([*runs, *(evaluation(cases, selection="last", seed=seed) for seed in range(3))]).layout
    assert table.columns == ("tvconv",)
    assert [row[0] for row in table.rows] == ["A", "B", "mean"]
    gains = np.array([[1.0] * 3, [2.0] * 3, [3.0] * 3])
    interval = bootstrap_interval(gains)
    assert table.rows[0][1] == f"+2.00 [{interval.low:+.2f}, {interval.high:+.2f}]"
    assert table.rows[1][1] == "+2.00 [+2.00, +2.00]"
    both = bootstrap_interval(gains, np.full((3, 3), 2.0))
    assert table.rows[2][1] == f"+2.00 [{both.low:+.2f}, {both.high:+.2f}]"
    assert interval.low < 1.5 and interval.high > 2.5
    assert "DSC [%]" in table.title and "(chosen on the scored cases themselves)" in table.title
    assert "oracle minus source-validation" in table.notes[-2]


def test_the_meter_for_a_program_has_its_numbers_apart():
    """A gain of 1 point in A of tvconv; conv has no oracle."""
    frame = leak_table([*pair([0.5, 0.7], 0.01), evaluation([0.5, 0.6], operator="conv")]).frame
    identity = ["operator", "recipe", "preset", "precision", "holdout"]
    assert list(frame) == [*identity, "difference", "low", "high"]
    assert frame["operator"].tolist() == ["conv", "conv", "tvconv", "tvconv"]
    assert frame["holdout"].fillna("NA").tolist() == ["A", "NA", "A", "NA"]  # the mean has the name of no domain
    numbers = frame[["difference", "low", "high"]].to_numpy()
    assert np.isnan(numbers[:2]).all()
    assert numbers[2:] == pytest.approx(1)


def test_a_domain_may_be_called_mean():
    runs = [*pair([0.5, 0.7], 0.01, holdout="mean"), *pair([0.5, 0.7], 0.03, holdout="B")]
    report = leak_table(runs)
    assert report.frame["difference"].tolist() == pytest.approx([3, 1, 2])
    assert [row[0] for row in report.layout.rows] == ["B", "mean", "mean"]


def test_a_run_without_a_probe_is_named_and_no_mean_is_made_of_some_domains():
    table = leak_table([
        *pair([0.5, 0.6], 0.01, seed=0), evaluation([0.5, 0.6], seed=7),
        evaluation([0.5, 0.6], holdout="B"), *pair([0.5, 0.6], 0.0, operator="conv", holdout="B"),
    ]).layout  # fmt: skip
    cells = {(row[0], name): row[position] for row in table.rows for position, name in enumerate(table.columns, 1)}
    assert cells["A", "tvconv"].startswith("+1.00 [")
    missing = [("B", "tvconv"), ("mean", "tvconv"), ("A", "conv"), ("mean", "conv")]
    assert [cells[where] for where in missing] == ["missing"] * 4
    assert any("unseen A: tvconv [source-validation] alone has 1 seed (7)" in note for note in table.notes)


def test_without_both_selections_there_is_no_meter():
    assert leak_table([evaluation([0.5, 0.6]), evaluation([0.5, 0.6], selection="last")]) is None


def test_the_gap_of_a_run_is_its_mean_over_cases_then_source_domains():
    """In-domain 0.9 in B (one case) and (0.6 + 0.8) / 2 in C: 0.8; the unseen domain has 0.5."""
    inside = evaluation([0.9, 0.6, 0.8], domains=["B", "C", "C"], scored="in-domain")
    (row,) = domain_gaps([(evaluation([0.4, 0.6]), inside)]).to_dict("records")
    assert (row["in_domain"], row["out_of_domain"], row["gap"]) == pytest.approx((80, 50, 30))
    table = domain_gap_table([(evaluation([0.4, 0.6]), inside)]).layout
    assert table.columns == ("tvconv",)
    assert table.rows == (("A", "in-domain", "80.00"), ("A", "out-of-domain", "50.00"), ("A", "gap", "30.00"))


def test_gaps_for_a_program_are_a_row_a_run():
    pairs = [
        (evaluation([0.4, 0.6], seed=seed), evaluation([score], domains=["B"], scored="in-domain", seed=seed))
        for seed, score in enumerate((0.75, 0.8))
    ]
    frame = domain_gap_table(pairs).frame
    assert list(frame) == [*RUN_FIELDS, "in_domain", "out_of_domain", "gap"]
    assert frame["seed"].tolist() == [0, 1]
    assert frame[["in_domain", "out_of_domain", "gap"]].to_numpy() == pytest.approx(
        np.array([[75, 50, 25], [80, 50, 30]])
    )


def test_in_domain_scores_stand_in_no_table_of_unseen_domains():
    inside = evaluation([0.9], scored="in-domain", seed=1)
    with pytest.raises(ProtocolError, match=r"two kinds of cases in one table: holdout in .*, in-domain in"):
        score_table([evaluation([0.5]), inside])
    with pytest.raises(ProtocolError, match="not the in-domain scores of"):
        domain_gaps([(evaluation([0.5]), inside)])


def test_runs_are_scored_by_each_selection_and_in_domain(draw_root, tmp_path):
    root = open_root(draw_root())
    probed = train(settings(), root, tmp_path, probe=True)
    plain = train(settings(seed=1), root, tmp_path)
    progress = Lines()
    assert sorted(checkpoints_of(probed)) == ["best", "last", "oracle"]
    assert sorted(checkpoints_of(plain)) == ["best", "last"]
    evaluate_runs([tmp_path], checkpoints="all", progress=progress)
    assert progress.lines == [
        f"left out: 1 run, trained without --probe-holdout, in the column of selection oracle: {plain.path}"
    ]
    with pytest.raises(RunError, match=r"oracle\.ckpt: .*; train it anew with --probe-holdout, in another --out"):
        evaluate(plain, checkpoint="oracle")
    oracle, best = evaluate(probed, checkpoint="oracle"), evaluate(probed)
    assert (oracle.meta.selection, best.meta.selection) == (ORACLE, SOURCE_VALIDATION)
    assert oracle.meta.probed and best.meta.probed and not evaluate(plain).meta.probed
    assert leak_table([oracle, best]).layout.columns == ("tvconv",)

    before = best.path.read_bytes()
    inside = evaluate(probed, scored="in-domain")
    assert inside.path == best.path.with_name(f"{best.path.stem}-in-domain.csv")
    expected = {(case.domain, case.name) for domain in "BCD" for case in root.cases(domain, "test")}
    expected = {(domain, name) for domain, name in expected if source_half(name) == "calibrate"}
    assert set(zip(inside.cases["domain"], inside.cases["case"], strict=True)) == expected
    assert best.path.read_bytes() == before
    assert evaluate(probed, scored="in-domain").cases.equals(inside.cases)
    assert len(domain_gaps([(best, inside)])) == 1
