from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fundus_seg.errors import ProtocolError, UsageError
from fundus_seg.statistics.comparison import compare_operators
from fundus_seg.statistics.intervals import detectable_difference, paired_t_p

DOMAINS = "ABCD"


def scores(column, dsc, *, holdout="A", structure="disc", seed=0, excluded=()):
    """The case values of one run: a row for each value of `dsc`, cases named 0, 1, ..."""
    rows = pd.DataFrame({"case": [str(case) for case in range(len(dsc))], "dsc": np.asarray(dsc, float)})
    rows = rows.assign(column=column, holdout=holdout, structure=structure, seed=seed)
    rows["excluded"] = rows["case"].isin(excluded)
    rows.loc[rows["excluded"], "dsc"] = np.nan
    return rows


def experiment(gain, *, seeds=(0, 1, 2), cases=12):
    """Every cell of two operators, drawn: `new` is `gain` points above `old`, less some noise."""
    rng = np.random.default_rng(0)
    frames = []
    for holdout in DOMAINS:
        for structure in ("disc", "cup"):
            photographs = rng.normal(85, 5, cases)
            for seed in seeds:
                for column, shift in (("old", 0.0), ("new", gain)):
                    dsc = photographs + shift + rng.normal(0, 0.3) + rng.normal(0, 0.5, cases)
                    frames.append(scores(column, dsc, holdout=holdout, structure=structure, seed=seed))
    return pd.concat(frames, ignore_index=True)


def test_runs_are_paired_by_seed_and_cases_by_name():
    """The second operator's rows come in another order: 2 points better in every case, whichever run and photograph."""
    old = [scores("old", [80, 90, 70], seed=0), scores("old", [82, 94, 72], seed=1)]
    new = [scores("new", [84, 96, 74], seed=1)[::-1], scores("new", [82, 92, 72], seed=0)[::-1]]
    found = compare_operators(pd.concat([*old, *new], ignore_index=True), "new", "old")
    (cell,) = found.cells
    assert (cell.structure, cell.holdout, cell.runs, cell.cases) == ("disc", "A", 2, 3)
    assert (cell.first, cell.second, cell.difference) == pytest.approx((250 / 3, 244 / 3, 2))
    assert (cell.interval.low, cell.interval.high) == pytest.approx((2, 2))
    assert cell.interval.over == "cases"
    assert cell.rank_biserial == 1
    assert cell.p == pytest.approx(2 / 8)  # of three gains, the least two-sided p
    assert found.unpaired == ()
    assert (cell.detectable, cell.runs_needed) == (0, 2)  # the runs' differences are equal


def test_two_eyes_of_a_patient_are_one_pair():
    """Six patients, two eyes each: of the 2⁶ signs only all + and all - are as extreme, not of 2¹²."""
    gains = [1, 2, 3, 4, 5, 6]
    runs = [scores("old", [80] * 12), scores("new", 80 + np.repeat(gains, 2))]
    values = pd.concat(runs, ignore_index=True)
    patients = [str(int(case) // 2) for case in values["case"]]
    (cell,) = compare_operators(values.assign(patient=patients), "new", "old").cells
    assert (cell.cases, cell.patients, cell.difference) == (12, 6, pytest.approx(3.5))
    assert cell.p == pytest.approx(2 / 2**6)
    (apart,) = compare_operators(values, "new", "old").cells
    assert (apart.cases, apart.patients) == (12, 12)
    assert cell.interval.high - cell.interval.low > 1.2 * (apart.interval.high - apart.interval.low)
    (named,) = compare_operators(values.assign(patient=values["case"].map("p{}".format)), "new", "old").cells
    assert (named.interval, named.p, named.rank_biserial) == (apart.interval, apart.p, apart.rank_biserial)


def test_power_is_of_the_spread_of_the_runs_differences():
    old = [scores("old", [80, 80], seed=seed) for seed in range(3)]
    new = [scores("new", [80 + gain, 80 + gain], seed=seed) for seed, gain in enumerate((1, 2, 3))]
    (cell,) = compare_operators(pd.concat([*old, *new]), "new", "old", sought=1.0).cells
    assert cell.detectable == pytest.approx(detectable_difference(1.0, 3))  # SD of 1, 2, 3 is 1
    assert cell.p_runs == pytest.approx(paired_t_p([1, 2, 3]))
    assert cell.runs_needed == 10  # effect 1: as G*Power


def test_one_run_says_nothing_of_runs():
    (cell,) = compare_operators(pd.concat([scores("old", [1, 2]), scores("new", [2, 4])]), "new", "old").cells
    assert np.isnan([cell.detectable, cell.p_runs]).all()
    assert cell.runs_needed is None


def test_family_of_holm_is_the_eight_cells():
    found = compare_operators(experiment(0.4), "new", "old")
    assert [(cell.structure, cell.holdout) for cell in found.cells] == [
        (structure, holdout) for structure in ("disc", "cup") for holdout in DOMAINS
    ]
    least = min(found.cells, key=lambda cell: cell.p)
    assert least.p_holm == pytest.approx(min(1, 8 * least.p))
    assert all(cell.p_holm >= cell.p for cell in found.cells)
    assert found.overall.p_holm == found.overall.p


def test_overall_is_the_mean_of_the_cells():
    found = compare_operators(experiment(1.0), "new", "old")
    assert found.overall.difference == pytest.approx(np.mean([cell.difference for cell in found.cells]))
    assert (found.overall.structure, found.overall.runs, found.overall.cases) == (None, 3, 48)
    assert found.overall.interval.low < found.overall.difference < found.overall.interval.high
    narrowest = min(cell.interval.high - cell.interval.low for cell in found.cells)
    assert found.overall.interval.high - found.overall.interval.low < narrowest


def test_the_other_way_round_is_the_negative():
    values = experiment(0.3)
    one, other = compare_operators(values, "new", "old").overall, compare_operators(values, "old", "new").overall
    assert (one.difference, one.rank_biserial) == pytest.approx((-other.difference, -other.rank_biserial))
    assert one.p == other.p


def test_what_has_no_partner_is_named_and_counted():
    frames = [scores("old", [80, 81, 82], seed=seed) for seed in (0, 1, 2)]
    frames += [scores("new", [81, 82], seed=seed) for seed in (1, 2, 3)]
    frames += [scores("old", [80, 81], holdout="B")]
    found = compare_operators(pd.concat(frames), "new", "old")
    (cell,) = found.cells
    assert (cell.runs, cell.cases, cell.difference) == (2, 2, 1)
    assert found.unpaired == (
        "unseen A: new alone has 1 seed (3)",
        "unseen A: old alone has 1 seed (0)",
        "unseen A, disc: not in every run 1 case (2)",
        "unseen B: old alone has 1 seed (0)",
    )


def test_overall_is_never_over_part_of_the_cells():
    whole = experiment(1.0)
    part = whole[~((whole["column"] == "old") & (whole["structure"] == "cup") & (whole["holdout"] == "D"))]
    found = compare_operators(part, "new", "old")
    assert len(found.cells) == 7
    assert found.overall is None
    disjoint = [
        scores(name, [80, 90], structure=structure, excluded=[without])
        for name in ("old", "new")
        for structure, without in (("disc", "0"), ("cup", "1"))
    ]
    assert compare_operators(pd.concat(disjoint), "new", "old").overall is None  # no case has both structures


def test_a_case_without_truth_is_no_missing_partner():
    frames = [scores(name, [80, 90, 85], excluded=["1"]) for name in ("old", "new")]
    found = compare_operators(pd.concat(frames), "new", "old")
    assert found.cells[0].cases == 2
    assert found.unpaired == ()


def test_overall_takes_cases_with_both_structures():
    frames = [
        scores(name, [80 + gain, 90 + gain], structure=structure, excluded=["1"] if structure == "cup" else [])
        for name, gain in (("old", 0), ("new", 2))
        for structure in ("disc", "cup")
    ]
    found = compare_operators(pd.concat(frames), "new", "old")
    assert [cell.cases for cell in found.cells] == [2, 1]
    assert (found.overall.cases, found.overall.difference) == (1, 2)


def test_operators_with_nothing_in_common_are_refused():
    with pytest.raises(ProtocolError, match=r"nothing in common: unseen A: new alone has 1 seed \(1\); unseen A: old"):
        compare_operators(pd.concat([scores("old", [1, 2]), scores("new", [1, 2], seed=1)]), "new", "old")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new", "olt"), "unknown operator 'olt': did you mean 'old'"),
        (("new", "new"), "compared with itself"),
    ],
)
def test_wrong_names_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        compare_operators(pd.concat([scores("old", [1, 2]), scores("new", [1, 2])]), *arguments)


def test_a_sought_difference_is_above_0():
    with pytest.raises(UsageError, match="must be above 0"):
        compare_operators(experiment(1.0), "new", "old", sought=0)
