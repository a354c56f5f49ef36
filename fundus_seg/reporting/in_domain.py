"""In-domain beside out-of-domain scores: what the step to an unseen domain costs.

In-domain are the `calibrate` halves of the source domains' test splits: photographs of cameras that trained the
network, which neither trained it nor chose its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product

import pandas as pd

from fundus_seg.errors import ProtocolError
from fundus_seg.evaluation.metric_table import DEFAULT_METRICS, METRICS, check_metrics
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import STRUCTURES
from fundus_seg.reporting.floors import floors_of
from fundus_seg.reporting.frames import captions_of, case_values, labelled
from fundus_seg.reporting.notes import counts_and_protocol, patients_note, protocol_note, table_title
from fundus_seg.reporting.table import Report, Table, mean_sd_text
from fundus_seg.reporting.tables import cell_numbers, cell_text, title_of
from fundus_seg.statistics.intervals import MINIMAL_RUNS, mean_sd

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
        patients_note([each for pair in pairs for each in pair]),
        protocol_note(outside[0].meta.protocol),
    )
    title = title_of(outside, "In-domain beside unseen domains")
    return Report(gaps, Table(title, ("unseen", "Dice"), tuple(names.values()), tuple(rows), notes))


def in_domain_table(evaluations: Sequence[Evaluation], metrics: Sequence[str] = DEFAULT_METRICS) -> Report:
    """In-domain scores of networks by which no domain is unseen: a row for each domain that trained, and their mean.

    The frame has a row for each metric, structure, domain and column: metric, unit, structure, domain, COLUMN_FIELDS,
    mean, sd and runs, and the ends of the 95 % interval, low and high.

    Args:
        evaluations: in-domain scores of runs with one holdout, which may be `none`; at least one.
        metrics: keys of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table, or scores on a holdout.
        UsageError: an unknown metric.
    """
    check_metrics(metrics)
    names = captions_of(evaluations)
    split = [own for evaluation in evaluations for own in _by_domain(evaluation)]
    values = labelled(case_values(split, scored="in-domain"), names)
    cells = {where: cell for where, cell in values.groupby(["structure", "holdout", "column"])}
    frame, rows = [], []
    for metric, structure in product(metrics, STRUCTURES):
        heading, unit, bounds = METRICS[metric].heading, METRICS[metric].unit, METRICS[metric].bounds
        means: dict[str, list[float]] = {name: [] for name in names.values()}
        for domain in sorted(set(values["holdout"])):
            texts = []
            for column, name in names.items():
                cell = cells.get((structure, domain, name), values[:0])
                numbers, _ = cell_numbers(cell, cell.groupby("seed")[metric].mean(), metric, bounds)
                place = {"metric": metric, "unit": unit, "structure": structure, "domain": domain}
                frame.append({**place, **asdict(column), **numbers})
                texts.append(cell_text(column, numbers))
                means[name].append(numbers["mean"])
            rows.append((heading, structure, domain, *texts))
        rows.append((heading, structure, "mean", *(mean_sd_text(sum(each) / len(each)) for each in means.values())))
    notes = (
        "test photographs of the domains that trained the network, of the half that chose no checkpoint (`calibrate`); "
        "these scores say nothing about cameras that it has never seen",
        f"mean over runs; in brackets, for fewer than {MINIMAL_RUNS} runs, the 95 % interval over cases",
        *counts_and_protocol(evaluations, values, metrics),
    )
    title = table_title("In-domain scores, no domain is unseen", evaluations)
    layout = Table(title, ("metric", "structure", "domain"), tuple(names.values()), tuple(rows), notes)
    return Report(pd.DataFrame(frame), layout)


def _by_domain(evaluation: Evaluation) -> Iterator[Evaluation]:
    """The scores of each domain apart, the domain in place of the holdout; the digest of all true masks is left out."""
    for domain, cases in evaluation.cases.groupby("domain", sort=False):
        run = replace(evaluation.meta.run, holdout=str(domain))
        meta = evaluation.meta.model_copy(update={"run": run, "truth_digest": ""})
        yield replace(evaluation, meta=meta, cases=cases)


def _score(evaluation: Evaluation) -> float:
    values = scored_values(evaluation).assign(domain=evaluation.cases["domain"])
    means = values.groupby(["domain", "structure"])[_METRIC].mean()
    return float(means.groupby(level="domain").mean().mean())
