"""The worst, the median and the best cases of each unseen domain, by what all operators make of them."""

from __future__ import annotations

import pandas as pd

from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import networks
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.page.blocks import Shown
from fundus_seg.reporting.page.results import Results

MOST = 3
"""How many cases are the worst of a domain, at most; as many are the median ones, and the best."""
_METRIC = "dsc"
SHOWN_CASES = (
    Shown("unseen", "holdout"),
    Shown("rank", "rank"),
    Shown("case", "case"),
    Shown("operator", "column"),
    Shown("DSC, both [%]", "both", 2),
    *(Shown(f"DSC, {structure} [%]", structure, 2) for structure in STRUCTURES),
    Shown("HD95, both [px of 800]", "hd95", 2),
    Shown("runs", "runs", 0),
    Shown("empty predictions", "penalised", 0),
    Shown("mean DSC over operators [%]", "overall", 2),
)


def ranked_cases(results: Results) -> pd.DataFrame:
    """The chosen cases, a row for each and each operator.

    A case's rank is by its mean DSC over structures, then over runs, then over operators; a case without a true mask
    has none, and a structure without one is in no mean.

    Columns: holdout, rank (`worst`, `median` or `best`), case, column, `both` and each of the structures (mean DSC in %
    over runs), hd95 (px of 800), runs, penalised (empty predictions), overall (the mean by which it is ranked).
    """
    evaluations = networks(results.evaluations)
    values = labelled(case_values(evaluations), captions_of(evaluations))
    keys = ["holdout", "case", "column"]
    by_run = values.groupby([*keys, "seed"], sort=False)
    runs = by_run[[_METRIC, "hd95"]].mean().join(by_run["penalised"].sum()).reset_index()
    cells = runs.groupby(keys, sort=False)
    means = cells[[_METRIC, "hd95"]].mean().rename(columns={_METRIC: "both"})
    means = means.join(cells["penalised"].sum()).join(cells.size().rename("runs"))
    structures = values.pivot_table(_METRIC, keys, "structure", sort=False)
    whole = means.join(structures).reset_index()
    overall = whole.groupby(["holdout", "case"], sort=False)["both"].mean().dropna().rename("overall").reset_index()
    chosen = pd.concat([_chosen(own) for _, own in overall.groupby("holdout")], ignore_index=True)
    return chosen.merge(whole, on=["holdout", "case"], how="left")


def _chosen(cases: pd.DataFrame) -> pd.DataFrame:
    """The worst, the median and the best of a domain's cases, each once, with their rank in words."""
    ordered = cases.sort_values(["overall", "case"], ignore_index=True)
    count = len(ordered)
    each = max(1, min(MOST, count // 3))
    places: dict[int, str] = {}
    for rank, first in (("worst", 0), ("best", count - each), ("median", (count - each) // 2)):
        for place in range(first, first + each):
            places.setdefault(place, rank)
    kept = sorted(places)
    return ordered.iloc[kept].assign(rank=[places[place] for place in kept])
