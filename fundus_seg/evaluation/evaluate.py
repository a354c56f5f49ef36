"""From a trained run to its case records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fundus_seg.builtins import CheckpointName, Inference
from fundus_seg.config import PLUGIN_SETTINGS, ResolvedRun, RunConfig
from fundus_seg.data.dataset import Sample, read_masks, read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, RunError, about
from fundus_seg.evaluation.records import (
    Evaluation,
    EvaluationMeta,
    RunName,
    Scored,
    mask_digest,
    read_evaluation,
    read_meta,
    recover,
    truth_digest,
    write_evaluation,
)
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.evaluation.which_cases import cases_to_score, truth_name
from fundus_seg.inference.predict import Predictor, load_model
from fundus_seg.plugins import is_plugin, load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import Scoring
from fundus_seg.runs.atomic import atomic_path, csv_text
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import operator_name
from fundus_seg.runs.lease import leased
from fundus_seg.runs.provenance import versions
from fundus_seg.runs.record import is_probed, recorded_settings
from fundus_seg.seeding import reproducible
from fundus_seg.viz.overlay import draw_contours

_BATCH = 8


def evaluate(
    run: RunFolder,
    data: str | Path | None = None,
    *,
    checkpoint: CheckpointName = "best",
    scored: Scored = "holdout",
    scoring: Scoring | None = None,
    inference: Inference | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score a run, by default on the test split of its holdout, or read the scores if they are there already.

    The whole cases of a file that was cut off are kept, if together with the others they are what was written. Rows are
    written at once, after the last case: a kill in the middle of scoring keeps none, and costs the seconds it took.

    Args:
        run: a trained run.
        data: data root; None for the one that the run was trained on.
        checkpoint: `best`, `last` or, of a run that was probed, `oracle`.
        scored: the cases; scores of either kind have a file of their own, and never stand in one table.
        scoring: the protocol; None for the one of the run's own settings.
        inference: what the network sees, in place of what the protocol says.
        progress: where to show it.

    Raises:
        RunError: the run is not trained, has no such checkpoint, or another process is writing into it.
        CheckpointError: the checkpoint is not of the network that the run's settings name, or its operator is a plugin
            that the caller has not loaded, or that has changed.
        DataError: the photographs are not those that the run was made with, cannot be read, are too large to be seen
            at their own size, or a source domain has none in the half for in-domain scores.
    """
    config, content = _trained(run)
    scoring = scoring or config.scoring
    if inference is not None:
        scoring = scoring.model_copy(update={"inference": inference})
    root = _data_root(content, data, progress)
    weights = run.checkpoint(checkpoint)
    if not weights.is_file():
        anew = "train it anew with --probe-holdout, in another --out"
        raise RunError(
            f"{weights}: no such checkpoint; {anew if checkpoint == 'oracle' else 'delete the run and train again'}"
        )
    cases, images = cases_to_score(scored, run, content["inputs"], root, config, progress=progress)
    meta = EvaluationMeta(
        protocol=scoring,
        protocol_digest=scoring.digest(),
        data={where: digest for where, digest in content["inputs"].items() if "/" in where},
        phantom=root.phantom,
        selection=config.train.selection if checkpoint == "best" else checkpoint,
        checkpoint=checkpoint,
        scored=scored,
        probed=is_probed(content),
        checkpoint_sha256=file_digest(weights),
        code={setting: digest for setting, digest in content["inputs"].items() if setting in PLUGIN_SETTINGS},
        run=RunName(
            preset=config.preset,
            operator=operator_name(config, root.experiment),
            holdout=config.holdout,
            seed=config.seed,
            precision=config.train.precision,
        ),
        versions=versions(),
    )
    path = run.evaluation(scoring.digest(), checkpoint if scored == "holdout" else f"{checkpoint}-{scored}")
    if _is_whole(path, _recorded(path, meta, progress)) and (run.has("DONE") or scored != "holdout"):
        return read_evaluation(path)
    with leased(run.path):
        recorded = _recorded(path, meta, SILENT)  # again: another process may just have scored it
        if not _is_whole(path, recorded):
            predictor = _predictor(run, config, checkpoint, scoring)
            score = partial(_score, predictor, cases, images, progress=progress, task=f"scoring {run.path}")
            with reproducible(config.train.threads):
                if recorded is None or not recover(path, recorded.cases_sha256, len(cases), score, progress=progress):
                    truths = {truth_name(case, scored): mask_digest(read_masks(case)) for case in cases}
                    write_evaluation(path, meta.model_copy(update={"truth_digest": truth_digest(truths)}), score(0))
        if scored == "holdout":
            run.mark("DONE")
    return read_evaluation(path)


def write_overlays(
    run: RunFolder, evaluation: Evaluation, count: int, data: str | Path | None = None, *, progress: Progress = SILENT
) -> list[Path]:
    """Draw `count` cases of the holdout, evenly spaced from the worst Dice to the best; give the PNG files' paths.

    Disc green, cup blue, truth red; the file's name leads with the case's rank and its Dice. Pictures that an earlier
    call drew of the same checkpoint and scoring are replaced.
    """
    config, content = _trained(run)
    root = _data_root(content, data, progress)
    cases = root.cases(config.holdout, "test")
    ranked = evaluation.cases.groupby("case")["dsc"].mean().dropna().sort_values()
    picked = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    meta = evaluation.meta
    if meta.checkpoint is None:
        raise RunError(f"{evaluation.path}: scores of masks from elsewhere; no network can draw them again")
    predictor = _predictor(run, config, meta.checkpoint, meta.protocol)
    folder = run.overlays(meta.protocol_digest, meta.checkpoint)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    by_name = {case.name: case for case in cases}
    written = []
    for rank in picked:
        sample, raw = _predict(predictor, by_name[ranked.index[rank]])
        name = f"{rank + 1:03d}-dsc{100 * ranked.iloc[rank]:.1f}-{sample.name}.png"
        name = f"phantom-{name}" if meta.phantom else name
        with atomic_path(folder / name) as temporary:
            Image.fromarray(draw_contours(sample.image, predictor.clean(raw), sample.masks)).save(
                temporary, format="PNG"
            )
        written.append(folder / name)
    return written


def _trained(run: RunFolder) -> tuple[ResolvedRun, dict[str, Any]]:
    """The settings of a trained run, and all that its config.yaml holds."""
    content = run.read_config()
    if not run.has("TRAINED"):
        raise RunError(f"{run.path}: not trained to its end; the same `fundus-seg train` command goes on with it")
    return recorded_settings(run), content


def _data_root(content: dict[str, Any], data: str | Path | None, progress: Progress) -> DataRoot:
    return open_root(data if data is not None else content["provenance"]["data_root"], progress=progress)


def _predictor(run: RunFolder, config: RunConfig, checkpoint: CheckpointName, scoring: Scoring) -> Predictor:
    """The run's network, if it is the one that its settings name, of the same code."""
    predictor = load_model(run.path, checkpoint=checkpoint, scoring=scoring)
    if predictor.network.spec != config.network_spec():
        raise CheckpointError(f"{run.checkpoint(checkpoint)}: not of the network that {run.config} names; train again")
    op = config.model.op  # the network's own: what the caller has named, and what is imported already
    if is_plugin(op) and load(op).digest != run.read_config()["inputs"].get("model.op"):
        raise CheckpointError(f"{run.path}: the file of {op} has changed since training; restore it, or train again")
    return predictor


def _predictions(
    predictor: Predictor, cases: Sequence[Case], images: NDArray[np.uint8]
) -> Iterator[tuple[Case, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Each case with its raw predicted and its true masks, (2, H, W) on its own frame; truth is never resampled."""
    if predictor.scoring.inference == "native":
        for case in cases:
            sample, raw = _predict(predictor, case)
            yield case, raw, sample.masks
        return
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        for case, logits in zip(batch, predictor.logits(images[start : start + _BATCH]), strict=True):
            truth = read_masks(case)
            yield case, predictor.threshold(logits, truth.shape[1:]), truth


def _predict(predictor: Predictor, case: Case) -> tuple[Sample, NDArray[np.bool_]]:
    """The files of one case, and its predicted masks before post-processing."""
    sample = read_sample(case)
    with about(case.image):
        return sample, predictor.raw_masks(sample.image)


def _score(
    predictor: Predictor, cases: Sequence[Case], images: NDArray[np.uint8], first: int, *, progress: Progress, task: str
) -> str:
    """The CSV of the cases from number `first` on."""
    begin = first // _BATCH * _BATCH  # photographs are predicted in the batches of a whole evaluation, to the same bits
    predictions = _predictions(predictor, cases[begin:], images[begin:])
    rows: list[dict[str, Any]] = []
    scoring = predictor.scoring
    with progress.task(task, total=len(cases) - first) as advance:
        for case, raw, truth in islice(predictions, first - begin, None):
            identity: dict[str, Any] = {"protocol": scoring.digest(), "domain": case.domain, "case": case.name}
            rows += score_case(predictor.clean(raw), truth, raw=raw, scoring=scoring, **identity)
            advance()
    return csv_text(rows)


def _is_whole(path: Path, recorded: EvaluationMeta | None) -> bool:
    return recorded is not None and path.is_file() and file_digest(path) == recorded.cases_sha256


def _recorded(path: Path, meta: EvaluationMeta, progress: Progress) -> EvaluationMeta | None:
    """The JSON on disk if it is of these very scores, whatever versions made them; if not, says so."""
    if not path.exists() and not path.with_suffix(".json").exists():
        return None
    try:
        there = read_meta(path)
        unknown = [] if there.code else ["code"]
        own = {key: getattr(meta, key) for key in ("versions", "cases_sha256", "truth_digest", *unknown)}
        if there.truth_digest and there.model_copy(update=own) == meta:
            return there
        reason = "of another checkpoint or other data"
    except RunError:
        reason = "of an older format, or without its JSON"
    progress.line(f"{path}: {reason}; scoring every case again")
    return None
