"""What a run's network predicts: masks for the case records, and overlays. Of `evaluation`, only this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import CheckpointName, PictureFormat
from fundus_seg.config import ResolvedRun
from fundus_seg.data.dataset import Sample, Truth, read_sample
from fundus_seg.data.files import Case
from fundus_seg.data.names import file_name
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import CheckpointError, RunError, about
from fundus_seg.evaluation.alike import Alike
from fundus_seg.evaluation.ensembles import ensembles_of, members_of
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.evaluation.score_case import score_cases
from fundus_seg.evaluation.which_cases import (
    cases_to_score,
    data_of,
    photographs_of,
    readers_by,
    trained_settings,
    truths_by,
)
from fundus_seg.inference.adaptation import adapted
from fundus_seg.inference.ensemble import Ensemble
from fundus_seg.inference.predict import Predictor, Segmenter, load_model
from fundus_seg.plugins import is_plugin, load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, Combination, Scoring
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.record import refuse_lost
from fundus_seg.viz.overlay import PICTURE_SUFFIX, draw_overlay, save_picture

_BATCH = 8


def predictor_of(run: RunFolder, config: ResolvedRun, checkpoint: CheckpointName, scoring: Scoring) -> Predictor:
    """The run's network, without its temperatures: logits and masks do not depend on them.

    Raises:
        CheckpointError: the checkpoint is not of the network that the settings name, or its operator is a plugin that
            the caller has not loaded, or that has changed.
    """
    predictor = load_model(run.path, checkpoint=checkpoint, scoring=scoring, calibrated=False)
    if predictor.network.spec != config.network_spec():
        raise CheckpointError(f"{run.checkpoint(checkpoint)}: not of the network that {run.config} names; train again")
    op = config.model.op  # the network's own: what the caller has named, and what is imported already
    if is_plugin(op) and load(op).digest != run.read_config()["inputs"].get("model.op"):
        raise CheckpointError(f"{run.path}: the file of {op} has changed since training; restore it, or train again")
    return predictor


def segmenter_of(
    runs: Sequence[RunFolder], configs: Sequence[ResolvedRun], checkpoint: CheckpointName, scoring: Scoring
) -> Predictor | Ensemble:
    """What predicts by a protocol: the network of a run, or an ensemble.

    Args:
        runs: the runs.
        configs: the settings of each.
        checkpoint: which checkpoint of each.
        scoring: the protocol.

    Raises:
        CheckpointError: as `predictor_of`.
    """
    members = [predictor_of(run, config, checkpoint, scoring) for run, config in zip(runs, configs, strict=True)]
    if isinstance(scoring, Combination) and (scoring.ensemble or scoring.views != "none"):
        return Ensemble(members, views=scoring.views)
    return members[0]


def _predictions(
    predictor: Segmenter, cases: Sequence[Case], images: NDArray[np.uint8]
) -> Iterator[tuple[Case, NDArray[np.bool_], list[Truth]]]:
    """Each case with its raw predicted masks, (2, H, W) on its own frame, and its truths, which are never resampled."""
    if not isinstance(predictor, Predictor) or predictor.scoring.inference == "native":
        for case in cases:
            _, raw = _predict(predictor, case)
            yield case, raw, truths_by(predictor.scoring, case)
        return
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        for case, logits in zip(batch, predictor.logits(images[start : start + _BATCH]), strict=True):
            truths = truths_by(predictor.scoring, case)
            yield case, predictor.framed(logits, truths[0].masks.shape[1:]), truths


def _adapted_predictions(
    predictor: Segmenter, cases: Sequence[Case], images: NDArray[np.uint8]
) -> Iterator[tuple[Case, NDArray[np.bool_], list[Truth]]]:
    """`_predictions`, domain by domain, of networks that have adapted to the photographs of the domain."""
    for domain in dict.fromkeys(case.domain for case in cases):
        own = [number for number, case in enumerate(cases) if case.domain == domain]
        with about(cases[own[0]].image):
            predictor_there = adapted(predictor, images[own])
        yield from _predictions(predictor_there, [cases[number] for number in own], images[own])


def _predict(predictor: Segmenter, case: Case) -> tuple[Sample, NDArray[np.bool_]]:
    """The files of one case, and its predicted masks before post-processing."""
    sample = read_sample(case)
    with about(case.image):
        return sample, predictor.raw_masks(sample.image)


def score_from(
    predictor: Segmenter, cases: Sequence[Case], images: NDArray[np.uint8], first: int, *, progress: Progress, task: str
) -> tuple[str, dict[str, Alike]]:
    """The CSV of the cases from number `first` on, and how alike the masks of these cases are.

    Args:
        predictor: the run's network, or the ensemble.
        cases: all cases of the evaluation.
        images: their photographs at the training size, (N, S, S, 3).
        first: number of the first case that is scored.
        progress: shows how many cases are scored.
        task: what the progress is called.
    """
    begin = first // _BATCH * _BATCH  # photographs are predicted in the batches of a whole evaluation, to the same bits
    if predictor.scoring.adapt_batch_norms is None:
        predictions = _predictions(predictor, cases[begin:], images[begin:])
    else:
        begin, predictions = 0, _adapted_predictions(predictor, cases, images)
    wanted = islice(predictions, first - begin, None)
    with progress.task(task, total=sum(len(readers_by(predictor.scoring, case)) for case in cases[first:])) as advance:
        each = ((case, raw, truth) for case, raw, truths in wanted for truth in truths)
        return score_cases(each, predictor.scoring, advance)


def predict_cases(
    run: RunFolder,
    evaluation: Evaluation,
    names: Sequence[str],
    data: str | Path | None = None,
    *,
    progress: Progress = SILENT,
) -> Iterator[tuple[Sample, NDArray[np.bool_]]]:
    """Some cases of the holdout, each with its masks as they were scored, (2, H, W) on its own frame.

    Args:
        run: a trained run, or an ensemble of some.
        evaluation: its scores on the holdout, which name checkpoint and protocol.
        names: the cases.
        data: data root; None for the one that the run was trained on.
        progress: told what opening the data tells.

    Raises:
        RunError: the scores are of masks that another tool made or of another checkpoint, or the run is not trained.
        DataError: the photographs are not those that the run was made with.
    """
    runs = members_of(run)
    settings = [trained_settings(each) for each in runs]
    config, content = settings[0]
    meta = evaluation.meta
    if meta.checkpoint is None:
        raise RunError(f"{evaluation.path}: scores of masks of another tool, whose network is not here to draw them")
    for each in runs:
        refuse_lost(each, [meta.checkpoint])
    digests = [file_digest(each.checkpoint(meta.checkpoint)) for each in runs]
    if meta.checkpoint_sha256 != (short_hash(digests, digits=64) if meta.members else digests[0]):
        raise RunError(f"{evaluation.path}: of another checkpoint than the one that is there; evaluate the run again")
    root = data_of(content, data, progress=progress)
    cases = cases_to_score("holdout", runs[0], content, root, config)
    predictor: Segmenter = segmenter_of(runs, [own for own, _ in settings], meta.checkpoint, meta.protocol)
    if meta.protocol.adapt_batch_norms is not None:
        predictor = adapted(predictor, photographs_of(cases, root, config, progress=progress))
    by_name = {case.name: case for case in cases}
    return ((sample, predictor.clean(raw)) for sample, raw in (_predict(predictor, by_name[name]) for name in names))


def case_predictor(
    folders: Sequence[Path], data: str | Path | None = None, *, ensemble: bool = False, progress: Progress = SILENT
) -> Callable[[Evaluation, Sequence[str]], Iterator[tuple[Sample, NDArray[np.bool_]]]]:
    """A function that gives some cases of an evaluation with their masks, as `predict_cases` does.

    Args:
        folders: runs, or folders with runs below them, whose evaluations it is given.
        data: data root; None for the one that each run was trained on.
        ensemble: whether the evaluations are of ensembles.
        progress: told what opening the data tells.
    """
    runs = trained_runs(folders)
    units: dict[Path, RunFolder] = {run.path: run for run in (ensembles_of(runs) if ensemble else runs)}
    return lambda evaluation, names: predict_cases(
        units[evaluation.path.parents[1]], evaluation, names, data, progress=progress
    )


def write_overlays(
    run: RunFolder,
    evaluation: Evaluation,
    count: int,
    data: str | Path | None = None,
    *,
    form: PictureFormat = "jpeg",
    progress: Progress = SILENT,
) -> list[Path]:
    """Draw `count` cases of the holdout, evenly spaced from the worst Dice to the best; give the pictures' paths.

    The file's name begins with the case's rank and its Dice. Pictures that an earlier call drew of the same checkpoint
    and scoring are replaced. There are none where every true mask is empty, since no Dice is defined then.

    Args:
        run: a trained run, or an ensemble of some.
        evaluation: its scores on the holdout.
        count: number of pictures; fewer where there are fewer cases.
        data: data root; None for the one that the run was trained on.
        form: format of the pictures.
        progress: shows what is done.

    Raises:
        RunError: the scores are of masks that another tool made, or the run is not trained.
    """
    meta = evaluation.meta
    ranked = evaluation.cases.groupby("case")["dsc"].mean().dropna().sort_values()
    if ranked.empty:
        progress.line(
            f"{run.path}: no overlays, since no case of {meta.run.holdout} has a Dice: every true mask is empty"
        )
        return []
    picked = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    predictions = predict_cases(run, evaluation, ranked.index[picked].tolist(), data, progress=progress)
    assert meta.checkpoint is not None  # of other tools' masks nothing is predicted
    folder = run.overlays(meta.protocol_digest, meta.checkpoint)
    for suffix in PICTURE_SUFFIX.values():
        for earlier in folder.glob(f"*{suffix}"):
            earlier.unlink()
    written = []
    for rank, (sample, masks) in zip(picked, predictions, strict=True):
        prefix = f"{'phantom-' if meta.phantom else ''}{rank + 1:03d}-dsc{100 * ranked.iloc[rank]:.1f}-"
        scores = evaluation.cases[evaluation.cases["case"] == sample.name].set_index("structure")["dsc"].dropna()
        texts = [f"Dice {structure} {100 * value:.1f}" for structure, value in scores.items()]
        texts += [f"{name} not annotated" for name, told in zip(STRUCTURES, sample.annotated, strict=True) if not told]
        path = folder / file_name(sample.name, PICTURE_SUFFIX[form], prefix)
        save_picture(draw_overlay(sample.image, masks, sample.masks, name=sample.name, texts=texts), path, form)
        written.append(path)
    return written
