"""From the masks of any tool to case records that stand beside those of our runs.

The masks get the protocol's post-processing, as those of a run do, and then the same scores. The other tool chose its
own threshold and input size; how it chose its weights is unknown, and every table says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fundus_seg.builtins import Missing
from fundus_seg.data.dataset import Truth
from fundus_seg.data.mask_files import MaskPairs
from fundus_seg.data.witness import Watch
from fundus_seg.digests import short_hash
from fundus_seg.errors import Problems, RunError, UsageError, counted
from fundus_seg.evaluation.alike import SeenMasks
from fundus_seg.evaluation.records import (
    Evaluation,
    EvaluationMeta,
    mask_digest,
    read_evaluation,
    truth_digest,
    write_evaluation,
)
from fundus_seg.evaluation.score_case import score_case
from fundus_seg.inference.postprocess import clean_by
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import NONE_UNSEEN, STRUCTURES, Scoring
from fundus_seg.runs.atomic import csv_text
from fundus_seg.runs.folder import RunFolder, folders_below
from fundus_seg.runs.identity import MEAN_MASK, READERS, UNKNOWN, RunIdentity
from fundus_seg.runs.provenance import versions

_EXTERNAL = "external"
_WORD = re.compile(r"\w[\w.+-]*")  # a name that a folder and a column may have


def score_masks(
    pairs: MaskPairs,
    *,
    name: str = _EXTERNAL,
    holdout: str = UNKNOWN,
    seed: int = 0,
    scoring: Scoring | None = None,
    missing: Missing = "leave-out",
    out: Path | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score predicted masks against true ones.

    Args:
        pairs: the masks.
        name: name of the tool; it stands where a run has its operator.
        holdout: the domain of the cases.
        seed: number of the run, of several runs of the tool.
        scoring: the protocol; None for the paper's.
        missing: whether cases without a prediction are left out or count as empty predictions.
        out: folder for the records, which are kept at `external/<holdout>/<name>/seed-<n>/evaluations/`, where
            `external_evaluations` finds them; None keeps nothing.
        progress: shows how many cases are scored.

    Raises:
        DataError: masks that cannot be used, all of them named; nothing is written.
        UsageError: a name or holdout that cannot name a folder, a name that the floor has, a protocol that says what a
            network does, or `out` holds scores of other masks there.
    """
    for word in (name, holdout):
        if not _WORD.fullmatch(word):
            raise UsageError(f"'{word}' cannot name a tool or a domain: take letters, digits and any of . _ + -")
    if holdout.lower() == NONE_UNSEEN:
        raise UsageError(f"'{holdout}' cannot name a domain: --holdout names the domain that the cases come from")
    if name in (MEAN_MASK, READERS):
        what = "mean mask of the source domains" if name == MEAN_MASK else "agreement of readers"
        raise UsageError(f"'{name}' is what tables call the {what}: give another --name")
    scoring = scoring or Scoring()
    if not scoring.for_any_masks:
        raise UsageError(
            "scoring.adapt_batch_norms, ensembles and views change what networks predict, and masks of another tool "
            "are there already: take a scoring protocol without these"
        )
    unpredicted = pairs.unpredicted if missing == "leave-out" else ()
    cases = sorted({*pairs.names, *pairs.unpredicted} - set(unpredicted))
    progress.left_out("case", "not predicted and in no mean", unpredicted, "--missing empty counts them as missed")
    if pairs.unpredicted and not unpredicted:
        progress.line(f"{counted(len(pairs.unpredicted), 'case')} without a prediction: counted as missed")
    rows: list[dict[str, Any]] = []
    predictions: dict[str, str] = {}
    truths: dict[str, str] = {}
    changed = 0
    exchanged = 0
    held = np.zeros((2, len(STRUCTURES)), dtype=bool)  # by any prediction, by any truth
    problems = Problems()
    watch = Watch()
    seen = SeenMasks()
    with progress.task("scoring", total=len(cases)) as advance:
        for case in cases:
            with problems.gather():
                given, truth = _read(pairs, case, watch)
                processed = clean_by(scoring, given)
                held |= np.any([given, truth], axis=(2, 3))
                changed += not np.array_equal(given, processed)
                exchanged += _disc_inside_cup(given)
                identity: dict[str, Any] = {"protocol": scoring.digest(), "domain": holdout, "case": case}
                told = pairs.truths.annotated(case, truth)
                rows += score_case(processed, truth, raw=given, scoring=scoring, annotated=told, **identity)
                seen.add(processed, truth)
                predictions[case], truths[case] = mask_digest(given), mask_digest(Truth(truth, told).told)
            advance()
    watch.close(problems.found, "masks cannot be scored", progress)
    if exchanged == len(pairs.names) > 1:
        raise UsageError(
            f"in all {exchanged} predictions the disc lies inside its cup: give the discs first, then cups"
        )
    if changed:
        progress.line(f"post-processing of the protocol changed {changed} of {counted(len(pairs.names), 'prediction')}")
    for structure, predicted, true in zip(STRUCTURES, *held, strict=True):
        if true and not predicted:
            progress.line(f"no prediction holds a {structure}: its row counts them as missed")
    meta = EvaluationMeta(
        protocol=scoring,
        protocol_digest=scoring.digest(),
        data={},
        phantom=pairs.phantom,
        selection=UNKNOWN,
        checkpoint=None,
        checkpoint_sha256=short_hash({case: predictions[case] for case in pairs.names}, digits=64),
        truth_digest=truth_digest(truths),
        unpredicted=unpredicted,
        run=RunIdentity(name, recipe="", preset=UNKNOWN, precision=UNKNOWN, holdout=holdout, seed=seed),
        versions=versions(),
    )
    if out is None:
        return Evaluation(Path(name), meta, pd.DataFrame(rows), alike=seen.alike())
    root = out / "phantom" if pairs.phantom else out
    path = RunFolder(root / _EXTERNAL / holdout / name / f"seed-{seed}").evaluation(scoring.digest(), _EXTERNAL)
    if _recorded_masks(path) not in (None, meta.checkpoint_sha256):
        raise UsageError(f"{path}: scores of other masks; give another --name, --seed or --out, or remove them")
    write_evaluation(path, meta, csv_text(rows), seen.alike())
    return read_evaluation(path)


def _recorded_masks(path: Path) -> str | None:
    """Digest of the masks whose scores are on disk, however damaged or old these are; None if it is unknown."""
    try:
        return str(json.loads(path.with_suffix(".json").read_text("utf8"))["checkpoint_sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # a writer was killed: the scores are made again
        return None


def _disc_inside_cup(masks: NDArray[np.bool_]) -> bool:
    """Whether the disc of masks (2, H, W) is a part of the cup, and smaller: the two were exchanged."""
    disc, cup = masks
    return bool(disc.any() and not (disc & ~cup).any() and (cup & ~disc).any())


def _read(pairs: MaskPairs, case: str, watch: Watch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Prediction and truth of one case, (2, H, W) each; a missing prediction is read as empty."""
    if case in pairs.names:
        return pairs.read(case, watch)
    truth = pairs.truths.read(case, watch.truths)
    return np.zeros_like(truth), truth


def external_evaluations(paths: Sequence[Path]) -> list[Evaluation]:
    """All evaluations that `score_masks` has kept below some folders, sorted by path, each once.

    Raises:
        RunError: one is damaged or of another format.
    """
    folders = [folder for folder in folders_below(paths) if folder.name == "evaluations"]
    evaluations = []
    for path in sorted(path for folder in folders for path in folder.glob(f"*-{_EXTERNAL}.csv")):
        try:
            evaluations.append(read_evaluation(path))
        except RunError as error:
            raise RunError(
                f"{path}: not whole, or of another format; `fundus-seg score` its masks again, or remove it"
            ) from error
    return evaluations


def comparable(
    external: Sequence[Evaluation],
    own: Sequence[Evaluation],
    *,
    scoring: Scoring | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Those external evaluations that may stand in one table with the runs' own; `progress` is told of the others.

    The true masks of a domain are those of the runs. Where no run is scored on the domain, they are those of the tools
    that predicted every case, if these agree; a tool that did not is then left out.

    Args:
        external: evaluations of masks that other tools made.
        own: evaluations of runs, by whose protocol and true masks the others must be scored.
        scoring: the protocol where there is no evaluation of a run; None allows all.
        progress: told which evaluations are left out, and why.
    """
    protocols = {evaluation.meta.protocol_digest for evaluation in own or external}
    if scoring and not own:
        protocols = {scoring.digest()}
    fix_protocol = "`fundus-seg score` their masks again"
    if not all(each.meta.protocol.for_any_masks for each in own):
        fix_protocol = "masks of another tool stand beside networks that neither adapt nor predict together"
    truths = _agreed_truths([each for each in external if each.meta.protocol_digest in protocols])
    truths |= {evaluation.meta.run.holdout: evaluation.meta.truth_digest for evaluation in own}
    kept = []
    left_out: dict[tuple[str, str], list[Path]] = {}
    for evaluation in external:
        meta = evaluation.meta
        if meta.protocol_digest not in protocols:
            why = "of another scoring protocol", fix_protocol
        elif meta.truth_digest == (truths.get(meta.run.holdout) or meta.truth_digest):
            kept.append(evaluation)
            continue
        elif meta.unpredicted:
            why = (
                f"{counted(len(meta.unpredicted), 'case')} without a prediction, beside scores of all cases",
                "`fundus-seg score --missing empty` counts them as missed",
            )
        else:
            why = f"of other true masks of {meta.run.holdout} than the others", "give `fundus-seg score` the same"
        left_out.setdefault(why, []).append(evaluation.path)
    for (reason, fix), paths in left_out.items():
        progress.left_out("external evaluation", reason, paths, fix)
    return kept


def _agreed_truths(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """The digest of the true masks of each domain, where that of all tools that predicted every case is the same."""
    found: dict[str, set[str]] = {}
    for evaluation in evaluations:
        if not evaluation.meta.unpredicted:
            found.setdefault(evaluation.meta.run.holdout, set()).add(evaluation.meta.truth_digest)
    return {holdout: digests.pop() for holdout, digests in found.items() if len(digests) == 1}
