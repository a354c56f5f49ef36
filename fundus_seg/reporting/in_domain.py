"""In-domain beside out-of-domain scores: what the step to an unseen domain costs.

In-domain are the `calibrate` halves of the source domains' test splits: photographs of cameras that trained the
network, which neither trained it nor chose its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.notes import protocol_note
from fundus_seg.reporting.numbers import data_text
from fundus_seg.reporting.table import Table
from fundus_seg.reporting.tables import cell_values, in_order, runs_text, title_of

_METRIC = "dsc"
_LABELS = {"in_domain": "in-domain", "out_of_domain": "out-of-domain", "gap": "gap"}


def domain_gaps(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> pd.DataFrame:
    """A row a run: column (of the table), holdout, seed, in_domain and out_of_domain Dice in %, gap: in minus out.

    A score is the mean over cases, then structures, then domains.

    Args:
        pairs: of each run and checkpoint the scores on its holdout, and those in-domain.

    Raises:
        ProtocolError: the two of a pair are not those of one checkpoint by one protocol.
    """
    inside = {str(out.path): within for out, within in pairs}
    rows = []
    for column, out in in_order([out for out, _ in pairs]):
        within = inside[str(out.path)]
        own = {"checkpoint_sha256", "protocol", "run"}
        if out.meta.model_dump(include=own) != within.meta.model_dump(include=own) or within.meta.scored != "in-domain":
            raise ProtocolError(f"{within.path}: not the in-domain scores of {out.path}; evaluate the run again")
        scores = {"in_domain": _score(within), "out_of_domain": _score(out)}
        gap = scores["in_domain"] - scores["out_of_domain"]
        run = out.meta.run
        rows.append({"column": column, "holdout": run.holdout, "seed": run.seed, **scores, "gap": gap})
    return pd.DataFrame(rows)


def domain_gap_table(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> Table:
    """In-domain and out-of-domain Dice and their gap, mean ± SD over runs: three rows an unseen domain.

    Args:
        pairs: at least one, as for `domain_gaps`.

    Raises:
        ProtocolError: as `domain_gaps`.
    """
    gaps = domain_gaps(pairs)
    columns = tuple(gaps["column"].unique())
    rows = [
        (
            holdout,
            label,
            *(runs_text(cell_values(gaps, score, column=column, holdout=holdout)) for column in columns),
        )
        for holdout in sorted(gaps["holdout"].unique())
        for score, label in _LABELS.items()
    ]
    title, notes = _around(pairs, "; ± SD over runs")
    return Table(title, ("unseen", "Dice"), columns, tuple(rows), notes)


def tidy_domain_gap_table(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> Table:
    """The scores behind it for a program to read: a row a run.

    Raises:
        ProtocolError: as `domain_gaps`.
    """
    gaps = domain_gaps(pairs)
    rows = [
        (run["column"], run["holdout"], str(run["seed"]), *(data_text(run[score]) for score in _LABELS))
        for run in gaps.to_dict("records")
    ]
    title, notes = _around(pairs)
    return Table(title, ("operator", "holdout", "seed"), ("in-domain", "unseen", "gap"), tuple(rows), notes)


def _around(pairs: Sequence[tuple[Evaluation, Evaluation]], spread: str = "") -> tuple[str, tuple[str, ...]]:
    """Title and notes."""
    outside = [out for out, _ in pairs]
    notes = (
        f"{METRICS[_METRIC].heading}: mean over cases, then structures, then domains; gap: in-domain minus "
        f"out-of-domain of each run{spread}",
        "in-domain: test photographs of the source domains, of the half that chose no checkpoint (`calibrate`)",
        protocol_note(outside[0].meta.protocol),
    )
    return title_of(outside, "In-domain beside unseen domains"), notes


def _score(evaluation: Evaluation) -> float:
    values = scored_values(evaluation).assign(domain=evaluation.cases["domain"])
    means = values.groupby(["domain", "structure"])[_METRIC].mean()
    return float(means.groupby(level="domain").mean().mean())
