"""What is needed to repeat the runs: commands, environment, and digests of all that went in and came out."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.config import CHANGE_NOTHING, Recipe, flatten, load_recipe
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.protocol import Combination
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.page.kernels import MEASURE, measured_kernels
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.runs.folder import RunFolder

_NAMED = {"preset", "holdout", "seed", "model.op", "data.sources", *CHANGE_NOTHING}
"""Settings that have options of their own, or change no bit."""
_DIGITS = 16
ROOT = "ROOT"
"""What stands in commands for the folder of the photographs, which lies elsewhere on every machine."""


def commands(results: Results) -> tuple[str, ...]:
    """The commands that make the runs, their scores and this page again, in their order."""
    roots = {_provenance(run.evaluation).get("data_root") for run in results.every_run}
    data = "phantom" if roots == {"phantom"} else ROOT
    alike: dict[tuple[str, str], list[ScoredRun]] = {}
    experiment = {domain for run in results.every_run for domain in (*run.config.unseen, *run.config.data.sources)}
    for run in results.every_run:
        alike.setdefault(_recipe(run, experiment), []).append(run)
    lines = [line for (preset, options), runs in alike.items() for line in _training(runs, preset, options, data)]
    first = results.every_run[0].evaluation
    evaluate = ["fundus-seg evaluate runs"]
    if len(results.choices) > len(results.runs):
        evaluate.append("--all-selections")
    elif first.meta.checkpoint != "best":
        evaluate.append(f"--checkpoint {first.meta.checkpoint}")
    if results.within:
        evaluate.append("--in-domain")
    return (
        *lines,
        " ".join([*evaluate, *_protocol(first)]),
        *([MEASURE] if measured_kernels(results)[0] else []),
        " ".join(["fundus-seg report runs --out report.html", *_protocol(first)]),
    )


def _protocol(evaluation: Evaluation) -> list[str]:
    """The options by which several predictions are one."""
    protocol = evaluation.meta.protocol
    if not isinstance(protocol, Combination):
        return []
    return [*["--ensemble"] * protocol.ensemble, *([f"--views {protocol.views}"] if protocol.views != "none" else [])]


def _recipe(run: ScoredRun, experiment: Collection[str]) -> tuple[str, str]:
    """The preset and the options of what differs from it, but for operator, holdout and seed."""
    config = run.config
    standard, own = _settings(load_recipe(config.preset)), _settings(config)
    options = [f"--set {_quoted(key, value)}" for key, value in own.items() if value != standard.get(key)]
    if run.evaluation.meta.run.recipe != config.recipe(all_domains=experiment):  # it took a part of its data's domains
        options.append(f"--set {_quoted('data.sources', list(config.data.sources))}")
    probed = ["--probe-holdout"] if run.evaluation.meta.probed else []
    return config.preset, " ".join([*options, *probed])


def _settings(config: Recipe) -> dict[str, Any]:
    """The settings of training and scoring that options repeat."""
    return {key: value for key, value in flatten(config.model_dump(mode="json")).items() if key not in _NAMED}


def _quoted(key: str, value: Any) -> str:
    """`key=value` for a shell; of a path on this machine its last name."""
    text = value if isinstance(value, str) else json.dumps(value)
    return shlex.quote(f"{key}={Path(text).name if Path(text).is_absolute() else text}")


def _training(runs: Sequence[ScoredRun], preset: str, options: str, data: str) -> Iterator[str]:
    """One command for a whole grid of operators, unseen domains and seeds; else one for each run."""
    there = {(each.config.model.op, each.config.holdout, each.config.seed) for each in runs}
    ops, holdouts = (list(dict.fromkeys(names)) for names in zip(*(key[:2] for key in sorted(there)), strict=True))
    first, count = min(key[2] for key in there), len({key[2] for key in there})
    shared = f"--config {shlex.quote(preset)} --data {data} {options}".strip()
    whole = {*product(ops, holdouts, range(first, first + count))} == there
    ensembles = any(each.evaluation.meta.members for each in runs)
    if whole and not ensembles and runs[0].config.unseen and len(there) > 1:
        seeded = f"--runs {count}" + (f" --seed-from {first}" if first else "")
        yield f"fundus-seg benchmark --holdouts {','.join(holdouts)} --ops {','.join(ops)} {seeded} {shared}"
        return
    for run in runs:
        for seed in sorted(map(int, run.evaluation.meta.members)) or [run.config.seed]:
            yield f"fundus-seg train --holdout {run.config.holdout} --op {run.config.model.op} --seed {seed} {shared}"


def run_rows(results: Results) -> pd.DataFrame:
    """A row for each run: which it is, when and on what it was made, digests of its checkpoint and its case records."""
    evaluations = [*results.evaluations, *(run.evaluation for run in results.seen)]
    names = captions_of(evaluations)
    rows = []
    for each in evaluations:
        meta, told = each.meta, _provenance(each)
        hardware = told.get("hardware") or {}
        rows.append(
            {
                "column": names[meta.column],
                "holdout": meta.run.holdout,
                "seed": meta.run.seed,
                "networks": max(1, len(meta.members)),
                "checkpoint": meta.checkpoint_sha256[:_DIGITS],
                "cases": meta.cases_sha256[:_DIGITS],
                "created": told.get("created"),
                "commit": (told.get("commit") or "")[:12] or None,
                "hardware": hardware.get("gpu") or hardware.get("processor"),
            }
        )
    return pd.DataFrame(rows)


def _provenance(evaluation: Evaluation) -> Mapping[str, Any]:
    """What the run recorded when it began; nothing of ensembles and of masks of other tools."""
    folder = RunFolder(evaluation.path.parents[1])
    if not folder.config.is_file():
        return {}
    return dict(folder.read_config()["provenance"])


def version_rows(results: Results) -> pd.DataFrame:
    """The versions of Python and of the libraries that scored, with the number of evaluations of each."""
    counts = Counter(item for each in _metas(results) for item in each.versions.items())
    return pd.DataFrame(
        {"name": name, "version": version, "evaluations": count} for (name, version), count in counts.items()
    )


def input_rows(results: Results) -> pd.DataFrame:
    """The digest of each split of photographs and masks, and of plugins and starting weights."""
    found = Counter(item for each in _metas(results) for item in (*each.data.items(), *each.code.items()))
    return pd.DataFrame(
        {"what": what, "digest": digest, "evaluations": count} for (what, digest), count in found.items()
    )


def _metas(results: Results) -> list[Any]:
    return [each.meta for each in (*results.evaluations, *(run.evaluation for run in results.seen))]
