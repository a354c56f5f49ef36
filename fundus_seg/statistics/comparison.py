"""Two operators compared: runs paired by seed, cases by name, a test for each cell of the table and one over all.

Seed n gives every operator the same batches, so runs of one seed are a pair; and every operator is scored on the same
photographs. Runs and cases without a partner are named, never dropped in silence. Intervals and tests go by patient:
several cases of one are drawn together, or are one pair of a test (`statistics.patients`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from fundus_seg.errors import ProtocolError, UsageError, counted, unknown_name
from fundus_seg.protocol import STRUCTURES
from fundus_seg.statistics.intervals import (
    ALPHA,
    Interval,
    detectable_difference,
    holm,
    mean_sd,
    paired_t_p,
    rank_biserial,
    runs_needed,
    wilcoxon_p,
)
from fundus_seg.statistics.patients import CASE, patient_means, patients_interval, with_patients

_NAMED = 5


@dataclass(frozen=True)
class ComparedCell:
    """Two operators in one cell, or over all cells.

    Attributes:
        structure, holdout: the cell; None for all cells.
        runs, cases, patients: numbers of paired runs and cases, and of the patients behind these.
        first, second: mean of each operator, over runs of means over cases.
        difference: first minus second, in the metric's unit.
        interval: of the difference.
        p: two-sided, of Wilcoxon's signed-rank test on each patient's mean difference, over cases and seeds.
        p_holm: adjusted for the family, all cells of one metric and one pair; over all cells p alone is corrected.
        p_runs: two-sided, of the paired t-test over runs, to which `detectable` and `runs_needed` belong; NaN for one
            run. Like p_holm and the interval, it is corrected for the number of pairs that were tried.
        rank_biserial: the effect size: 1 where the first operator is larger in every patient, -1 in none.
        detectable: smallest true difference that a paired t-test over as many runs finds with 80 % power; NaN for one.
        runs_needed: for the difference that was asked for; None for one run, or for more than 10000.
    """

    structure: str | None
    holdout: str | None
    runs: int
    cases: int
    patients: int
    first: float
    second: float
    difference: float
    interval: Interval
    p: float
    p_holm: float
    p_runs: float
    rank_biserial: float
    detectable: float
    runs_needed: int | None


@dataclass(frozen=True)
class OperatorComparison:
    """Two operators compared by one metric.

    Attributes:
        metric: name of the column of scores.
        first, second: labels of the two columns.
        sought: the difference that `runs_needed` is for.
        cells: by structure, then holdout; a cell that either operator lacks is not among them.
        overall: over the cells, each of the same weight; None if either operator has a cell that is not compared.
        unpaired: a line for each group of runs or cases that has no partner and so was not compared.
        tried: the number of pairs of settings of which this one was chosen.
    """

    metric: str
    first: str
    second: str
    sought: float
    cells: tuple[ComparedCell, ...]
    overall: ComparedCell | None
    unpaired: tuple[str, ...]
    tried: int = 1


Block = tuple[pd.DataFrame, pd.DataFrame]
"""Scores of both operators: two frames as `case_scores` makes them, with equal rows and columns and no NaN."""


def compare_operators(
    values: pd.DataFrame,
    first: str,
    second: str,
    *,
    metric: str = "dsc",
    sought: float = 1.0,
    seed: int = 0,
    tried: int = 1,
) -> OperatorComparison:
    """Compare two columns of a table.

    Wilcoxon's test shows whether these networks differ on photographs of these centres; only the interval and the two
    numbers on power say something about other seeds.

    Where the two were chosen from several, p values are multiplied by the number of pairs, and intervals miss with a
    probability of 5 % divided by it (Bonferroni; Dunn, JASA 56, 1961). However the choice was made, the probability of
    a false finding then stays below 5 %.

    Args:
        values: one row per run, case and structure: `column` (a label), holdout, seed, structure, case, the metric and
            `excluded` (whether the case has no truth); and `patient`, without which each case is a patient of its own.
        first: a label of `column`.
        second: another label, whose scores are subtracted from those of the first.
        metric: name of the column of scores.
        sought: the difference, in the metric's unit, that `runs_needed` is for.
        seed: seed of the bootstrap.
        tried: the number of pairs that the two were chosen from.

    Raises:
        UsageError: an unknown metric or column, one column twice, or a `sought` that is not above 0.
        ProtocolError: the two have no cell, or in none a seed and a case, in common.
    """
    columns = list(dict.fromkeys(values["column"]))
    for name in (first, second):
        if name not in columns:
            raise UsageError(unknown_name("operator", name, columns))
    if first == second:
        raise UsageError(f"{first} compared with itself: name two operators (there are: {', '.join(columns)})")
    if not sought > 0:
        raise UsageError(f"difference {sought:g}: must be above 0")
    values = with_patients(values[values["column"].isin([first, second])])
    blocks, unpaired = paired_scores(values, first, second, metric)
    if not blocks:
        raise ProtocolError(f"{first} and {second} have nothing in common: {'; '.join(unpaired)}")
    cells = [_cell(structure, holdout, [block], sought, seed, tried) for (structure, holdout), block in blocks.items()]
    adjusted = holm([cell.p_holm for cell in cells])
    cells = [replace(cell, p_holm=float(p)) for cell, p in zip(cells, adjusted, strict=True)]
    there = values[~values["excluded"]].groupby(["structure", "holdout"]).ngroups
    whole = by_holdout(blocks) if len(blocks) == there else []
    # Cells may be whole and yet have no case with both structures.
    overall = _cell(None, None, whole, sought, seed, tried) if whole and all(one.size for one, _ in whole) else None
    return OperatorComparison(metric, first, second, sought, tuple(cells), overall, unpaired, tried)


def paired_scores(
    values: pd.DataFrame, first: str, second: str, metric: str
) -> tuple[dict[tuple[str, str], Block], tuple[str, ...]]:
    """The block of each (structure, holdout) with a seed and a case in common, and a line for all without a partner.

    Args:
        values: as for `compare_operators`, of these two columns alone.
        first: a label of `column`, whose scores come first in a block.
        second: the other label.
        metric: name of the column of scores.
    """
    blocks: dict[tuple[str, str], Block] = {}
    unpaired: list[str] = []
    for structure, holdout in product(STRUCTURES, sorted(values["holdout"].unique())):
        cell = values[(values["structure"] == structure) & (values["holdout"] == holdout)]
        cell = cell[~cell["excluded"]]  # without truth there is no score, of either operator
        seeds = {name: set(cell.loc[cell["column"] == name, "seed"]) for name in (first, second)}
        common = sorted(seeds[first] & seeds[second])
        for name, own in seeds.items():
            unpaired += _named(f"unseen {holdout}: {name} alone has", "seed", own - set(common))
        if common:
            scores = cell.pivot(index=["column", "seed"], columns=CASE, values=metric)
            one, other = scores.loc[first].loc[common], scores.loc[second].loc[common]
            whole = (one.notna() & other.notna()).all()
            lacking = whole.index[~whole].get_level_values("case")
            unpaired += _named(f"unseen {holdout}, {structure}: not in every run", "case", lacking)
            if whole.any():
                blocks[structure, holdout] = one.loc[:, whole], other.loc[:, whole]
    return blocks, tuple(dict.fromkeys(unpaired))


def _named(what: str, kind: str, items: Iterable[object]) -> list[str]:
    """One line that counts the items and names the first of them; no line for no item."""
    names = [str(item) for item in sorted(items, key=str)]
    if not names:
        return []
    more = ", ..." if len(names) > _NAMED else ""
    return [f"{what} {counted(len(names), kind)} ({', '.join(names[:_NAMED])}{more})"]


def by_holdout(blocks: Mapping[tuple[str, str], Block]) -> list[Block]:
    """A block for each unseen domain: means over structures, of the cases that have both."""
    by_holdout: dict[str, list[Block]] = {}
    for (_, holdout), block in blocks.items():
        by_holdout.setdefault(holdout, []).append(block)
    return [(_mean([one for one, _ in own]), _mean([other for _, other in own])) for own in by_holdout.values()]


def _mean(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Element by element, over the rows and columns that all frames have."""
    stacked = pd.concat(frames, keys=range(len(frames)), join="inner")
    means = stacked.groupby(level=1).mean()
    return means.loc[stacked.groupby(level=1).size() == len(frames)]


def _cell(
    structure: str | None, holdout: str | None, blocks: Sequence[Block], sought: float, seed: int, tried: int
) -> ComparedCell:
    """The statistics of blocks that are independent of one another and weigh the same: one, or one a domain.

    They are corrected for the number of pairs that were tried, but for p, which Holm's adjustment does not see.
    """
    differences = [one - other for one, other in blocks]
    by_patient = np.concatenate([patient_means(difference.mean()) for difference in differences])
    by_run = pd.concat([difference.mean(axis="columns") for difference in differences], axis="columns", join="inner")
    run_means = by_run.mean(axis="columns")
    spread = mean_sd(run_means)[1]
    first = float(np.mean([one.to_numpy().mean() for one, _ in blocks]))
    second = float(np.mean([other.to_numpy().mean() for _, other in blocks]))
    p = wilcoxon_p(by_patient)
    resamples = max(10_000, 400 * tried)  # ten beyond each end of the interval
    return ComparedCell(
        structure=structure,
        holdout=holdout,
        runs=len(by_run),
        cases=sum(difference.shape[1] for difference in differences),
        patients=len(by_patient),
        first=first,
        second=second,
        difference=first - second,
        interval=patients_interval(*differences, seed=seed, resamples=resamples, level=ALPHA / tried),
        p=p,
        p_holm=min(p * tried, 1.0),
        p_runs=float(np.minimum(paired_t_p(run_means) * tried, 1)),
        rank_biserial=rank_biserial(by_patient),
        detectable=detectable_difference(spread, len(by_run)),
        runs_needed=runs_needed(spread, sought),
    )
