"""In-domain beside out-of-domain scores: what the step to an unseen domain costs.

In-domain are the `calibrate` halves of the source domains' test splits: photographs of cameras that trained the
network, which neither trained it nor chose its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.floors import floors_of
from fundus_seg.reporting.frames import captions_of, labelled
from fundus_seg.reporting.notes import protocol_note
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.reporting.tables import title_of
from fundus_seg.statistics.intervals import mean_sd

_METRIC = "dsc"
_LABELS = {"in_domain": "in-domain", "out_of_domain": "out-of-domain", "gap": "gap"}

Pairs = Sequence[tuple[Evaluation, Evaluation]]
"""For each run and checkpoint the scores on its holdout, and those in-domain."""


def domain_gaps(pairs: Pairs) -> pd.DataFrame:
    """One row per run: RUN_FIELDS, in_domain and out_of_domain Dice in %, and gap: in-domain minus out-of-domain.

    A score is the mean over cases, then structures, then domains.

    Raises:
        ProtocolError: the two of a pair are not those of one checkpoint by one protocol.
    """
    rows = []
    for out, within in sorted(pairs, key=lambda pair: pair[0].meta.column):
        own = {"checkpoint_sha256", "protocol", "run"}
        if out.meta.model_dump(include=own) != within.meta.model_dump(include=own) or within.meta.scored != "in-domain":
            raise ProtocolError(f"{within.path}: not the in-domain scores of {out.path}; evaluate the run again")
        run = out.meta.run
        scores = {"in_domain": _score(within), "out_of_domain": _score(out)}
        gap = scores["in_domain"] - scores["out_of_domain"]
        rows.append({**asdict(out.meta.column), "holdout": run.holdout, "seed": run.seed, **scores, "gap": gap})
    return pd.DataFrame(rows)


def domain_gap_table(pairs: Pairs) -> Report:
    """In-domain and out-of-domain Dice and their gap, mean ± SD over runs: three rows per unseen domain.

    The frame is that of `domain_gaps`: one row per run, and one per floor that is known of both kinds of cases.

    Args:
        pairs: at least one.

    Raises:
        ProtocolError: as `domain_gaps`.
    """
    outside = [out for out, _ in pairs]
    floors, floors_within = floors_of(outside), floors_of([within for _, within in pairs]).of
    floor_pairs = {
        floors.of[out.path].path: (floors.of[out.path], floors_within[within.path])
        for out, within in pairs
        if out.path in floors.of and within.path in floors_within
    }
    shown = [*floor_pairs.values(), *pairs]
    gaps = domain_gaps(shown)
    names = captions_of([out for out, _ in shown])
    cells = {where: cell for where, cell in labelled(gaps, names).groupby(["holdout", "column"])}
    rows = []
    for holdout in sorted(gaps["holdout"].unique()):
        for score, label in _LABELS.items():
            values = (cells.get((holdout, name), gaps[:0])[score] for name in names.values())
            rows.append((holdout, label, *(mean_sd_text(*mean_sd(cell)) for cell in values)))
    notes = (
        f"{METRICS[_METRIC].heading}: mean over cases, then structures, then domains; gap: in-domain minus "
        "out-of-domain of each run; ± SD over runs",
        "in-domain: test photographs of the source domains, of the half that chose no checkpoint (`calibrate`)",
        *floors.notes,
        protocol_note(outside[0].meta.protocol),
    )
    title = title_of(outside, "In-domain beside unseen domains")
    return Report(gaps, Table(title, ("unseen", "Dice"), tuple(names.values()), tuple(rows), notes))


def _score(evaluation: Evaluation) -> float:
    values = scored_values(evaluation).assign(domain=evaluation.cases["domain"])
    means = values.groupby(["domain", "structure"])[_METRIC].mean()
    return float(means.groupby(level="domain").mean().mean())
