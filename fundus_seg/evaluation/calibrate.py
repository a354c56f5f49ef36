"""Temperatures for the probabilities of trained runs, and how well these are calibrated on seen and unseen domains.

A temperature is fitted at the training size, where the network saw the photograph and learned: every case has as many
pixels there, so that no case counts more for its frame. All pixels count, and most are background far from any border:
errors of calibration are small numbers, which compare, and say little alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import ResolvedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, UntrustedError
from fundus_seg.evaluation.calibrated import CalibratedCases, Where
from fundus_seg.evaluation.runs import tell_untrusted
from fundus_seg.evaluation.which_cases import cases_to_score, data_of, trained_settings
from fundus_seg.inference.calibration import Calibration, write_calibration
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.identity import recorded_identity
from fundus_seg.runs.lease import leased
from fundus_seg.runs.origin import why_not_unseen
from fundus_seg.runs.provenance import versions
from fundus_seg.runs.record import saw_phantom
from fundus_seg.seeding import reproducible
from fundus_seg.statistics.calibration import LIMITS, fit_temperature, measure

if TYPE_CHECKING:
    from fundus_seg.inference.predict import Predictor

_BATCH = 8
_AT_LIMIT = 1.01
"""Factor within which a temperature counts as one of LIMITS."""


class _Pixels(NamedTuple):
    """Logits and truth of one structure at the training size, (N, S, S) each, and the number of cases by domain."""

    logits: NDArray[np.float32]
    truths: NDArray[np.uint8]
    domains: Counter[str]


def calibrate_runs(
    folders: Sequence[Path], data: str | Path | None = None, *, progress: Progress = SILENT
) -> list[CalibratedCases]:
    """`calibrate` every trained run at or below some folders.

    Arguments and errors are those of `calibrate`. `progress` is also told of runs that are left out: they are not
    trained to their end, or the caller has not loaded their operator, which is an error if it is so of all.
    """
    measured: list[CalibratedCases] = []
    untrusted: list[tuple[Path, UntrustedError]] = []
    for run in trained_runs(folders, progress=progress):
        try:
            measured += calibrate(run, data, progress=progress)
        except UntrustedError as error:
            untrusted.append((run.path, error))
    tell_untrusted(untrusted, progress, alone=not measured)
    return measured


def calibrate(run: RunFolder, data: str | Path | None = None, *, progress: Progress = SILENT) -> list[CalibratedCases]:
    """Fit one temperature for each structure of a run's `best`, write calibration.json, and measure what it does.

    It is fitted on the `calibrate` halves of the source domains' test splits, which trained nothing and chose no
    checkpoint. Of the unseen domain, if there is one, nothing is fitted; it is measured.

    Args:
        run: a trained run.
        data: data root; None for the one that the run was trained on.
        progress: shows what is done, and is warned of a temperature at a limit.

    Returns:
        For each structure the cases that the temperature was fitted on, then those of the unseen domain.

    Raises:
        RunError: the run is not trained, or another process is writing into it.
        CheckpointError: the checkpoint is not of the network that the run's settings name.
        DataError: the photographs are not those that the run was made with, or a source domain has none in the half
            for calibration.
    """
    from fundus_seg.evaluation.predictions import predictor_of

    config, content = trained_settings(run)
    root = data_of(content, data, progress=progress)
    groups: dict[Where, list[Case]] = {"in-domain": cases_to_score("in-domain", run, content, root, config)}
    if not why_not_unseen(content):
        groups["unseen"] = cases_to_score("holdout", run, content, root, config)
    domains = Counter(case.domain for case in groups["in-domain"])
    predictor = predictor_of(run, config, "best", config.scoring)
    with leased(run.path), reproducible(config.train.threads):
        with progress.task(f"calibrating {run.path}", total=sum(map(len, groups.values()))) as advance:
            pixels = {
                where: _pixels(predictor, cases, root, config, progress, advance) for where, cases in groups.items()
            }
        for number, structure in enumerate(STRUCTURES):
            if not pixels["in-domain"][number].logits.size:
                text = f"nobody has annotated a {structure} in the half for calibration: add cases with one"
                raise DataError(text, root.path)
        fitted = [fit_temperature(own.logits, own.truths) for own in pixels["in-domain"]]
        calibration = Calibration(
            checkpoint_sha256=file_digest(run.checkpoint("best")),
            disc=fitted[0],
            cup=fitted[1],
            domains=dict(domains),
            data={f"{domain}/test": content["inputs"][f"{domain}/test"] for domain in domains},
            size=config.data.size,
            versions=versions(),
        )
        write_calibration(run.path, calibration)
    for structure, temperature in zip(STRUCTURES, fitted, strict=True):
        if not LIMITS[0] * _AT_LIMIT < temperature < LIMITS[1] / _AT_LIMIT:
            progress.warn(f"{run.path}: the temperature of the {structure} lies at a limit, {temperature:.3g}")
    identity = recorded_identity(run, config, content)
    return [
        CalibratedCases(
            identity.column(config.train.selection),
            identity.holdout,
            identity.seed,
            root.phantom or saw_phantom(content),
            structure,
            where,
            own[number].domains,
            before=measure(own[number].logits, own[number].truths, 1.0),
            after=measure(own[number].logits, own[number].truths, fitted[number]),
        )
        for number, structure in enumerate(STRUCTURES)
        for where, own in pixels.items()
        if own[number].logits.size
    ]


def _pixels(
    predictor: Predictor,
    cases: Sequence[Case],
    root: DataRoot,
    config: ResolvedRun,
    progress: Progress,
    advance: Callable[[], None],
) -> list[_Pixels]:
    """The pixels of each structure, of the cases in which it is annotated."""
    logits, masks, annotated = [], [], []
    domains: list[str] = []
    for domain in dict.fromkeys(case.domain for case in cases):
        split = load_resized(root.cases(domain, "test"), config.data, progress=progress)
        wanted = [split.names.index(case.name) for case in cases if case.domain == domain]
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            logits.append(predictor.logits(split.images[batch]).cpu().numpy())
            masks.append(split.masks[batch])
            annotated.append(split.annotated[batch])
            domains += [domain] * len(batch)
            for _ in batch:
                advance()
    own, true, told = (np.concatenate(each) for each in (logits, masks, annotated))
    found = []
    for number, known in enumerate(told.T):
        kept = slice(None) if known.all() else known  # without a copy, as a rule
        found.append(_Pixels(own[kept, number], true[kept, number], Counter(compress(domains, known))))
    return found
