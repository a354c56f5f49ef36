"""Score runs on the moved photographs of their unseen domains. Nothing is written: the scores are no case records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from fundus_seg.builtins import Perturbation
from fundus_seg.data.dataset import read_sample
from fundus_seg.evaluation.ensembles import members_of
from fundus_seg.evaluation.perturbation import Move, Perturbed, strengths_of
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import case_identity, score_case
from fundus_seg.inference.postprocess import clean_by
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.origin import runs_without_unseen, tell_left_out
from fundus_seg.runs.record import recorded_settings
from fundus_seg.seeding import reproducible


def perturb_runs(
    evaluations: Sequence[Evaluation],
    folders: Sequence[Path],
    kind: Perturbation,
    strengths: Sequence[float] | None = None,
    data: str | Path | None = None,
    *,
    ensemble: bool = False,
    progress: Progress = SILENT,
) -> Perturbed:
    """Score the checkpoints of evaluations again, by the same protocols, on moved photographs and true masks.

    Args:
        evaluations: scores of runs on their holdouts, as `evaluate_runs` gives them.
        folders: the runs, or folders with runs below, of which they are.
        kind: how photographs are moved.
        strengths: how far, as `strengths_of` says; None for the usual ones.
        data: data root; None for the one that each run was trained on.
        ensemble: whether the evaluations are of ensembles.
        progress: shows what is done, and is told of runs and masks of other tools that are left out.

    Raises:
        UsageError: a strength is not possible.
        RunError, CheckpointError, DataError: as `predictions.predict_cases`.
    """
    from fundus_seg.evaluation.predictions import units_below  # imports torch

    chosen = strengths_of(kind, strengths)
    where = f"of the scores of moved photographs ({kind})"
    tell_left_out(runs_without_unseen(trained_runs(folders, least=0)), where, progress)
    external = [each.path for each in evaluations if each.meta.external]
    progress.left_out("evaluation", f"of masks that another tool made, {where}", external)
    units = units_below(folders, ensemble=ensemble) if len(external) < len(evaluations) else {}
    found: dict[float, list[Evaluation]] = {strength: [] for strength in chosen}
    for evaluation in evaluations:
        if not evaluation.meta.external:
            unit = units[evaluation.path.parents[1]]
            for strength, cases in _perturbed(unit, evaluation, kind, chosen, data, progress).items():
                found[strength].append(replace(evaluation, cases=cases, alike=None))
    return Perturbed(kind, found)


def _perturbed(
    run: RunFolder,
    evaluation: Evaluation,
    kind: Perturbation,
    strengths: Sequence[float],
    data: str | Path | None,
    progress: Progress,
) -> dict[float, pd.DataFrame]:
    """The case records by strength. Each photograph is read once, and predicted in the batches of `evaluate`."""
    from fundus_seg.evaluation.predictions import BATCH, evaluated, raw_masks_of

    scoring = evaluation.meta.protocol
    rows: dict[float, list[dict[str, Any]]] = {strength: [] for strength in strengths}
    with reproducible(recorded_settings(members_of(run)[0]).train.threads):
        predictor, cases = evaluated(run, evaluation, data, progress=progress)
        with progress.task(f"{kind} of {run.path}", total=len(cases) * len(strengths)) as advance:
            for start in range(0, len(cases), BATCH):
                batch = cases[start : start + BATCH]
                samples = [read_sample(case) for case in batch]
                for strength in strengths:
                    move = Move(kind, strength)
                    moved = [move.image(sample.image) for sample in samples]
                    raws = raw_masks_of(predictor, moved, [case.image for case in batch])
                    for case, sample, raw in zip(batch, samples, raws, strict=True):
                        true, identity = move.masks(sample.masks), case_identity(case, scoring)
                        prediction = clean_by(scoring, raw)
                        rows[strength] += score_case(
                            prediction, true, raw=raw, scoring=scoring, annotated=sample.annotated, **identity
                        )
                        advance()
    return {strength: pd.DataFrame(own) for strength, own in rows.items()}
