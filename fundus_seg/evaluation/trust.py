"""Calibrate how far a network's predictions can be trusted, on its training domains; measure it on the unseen one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from fundus_seg.config import ResolvedRun
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot
from fundus_seg.digests import file_digest
from fundus_seg.errors import UntrustedError
from fundus_seg.evaluation.ensembles import RunEnsemble, ensembles_of, members_of, refuse_unlike
from fundus_seg.evaluation.runs import tell_untrusted
from fundus_seg.evaluation.trusted import TrustedRun, TrustSummary
from fundus_seg.evaluation.which_cases import any_phantom, cases_to_score, data_of, split_cases, trained_settings
from fundus_seg.inference.trust_file import Interval, TrustCalibration, read_trust, write_trust
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES, combined
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.identity import recorded_identity
from fundus_seg.runs.lease import leased
from fundus_seg.runs.origin import why_not_unseen
from fundus_seg.runs.provenance import versions
from fundus_seg.seeding import reproducible
from fundus_seg.trust.conformal import conformal_margin, density_ratio, effective_cases, outside, weighted_margins
from fundus_seg.trust.quality import Quality, fit_quality
from fundus_seg.trust.signals import names_of

ALPHA = 0.1
"""Probability that an interval misses, unless the caller says otherwise: intervals of 90 %."""
Result = TypeVar("Result")


def calibrate_trust_of_runs(
    folders: Sequence[Path],
    data: str | Path | None = None,
    *,
    ensemble: bool = False,
    alpha: float = ALPHA,
    progress: Progress = SILENT,
) -> list[TrustSummary]:
    """`calibrate_trust` of every trained run at or below some folders, or of their ensembles.

    Arguments and errors are those of `calibrate_trust`. `progress` is also told of runs that are left out.
    """
    return _of_units(
        folders, ensemble, progress, lambda unit: calibrate_trust(unit, data, alpha=alpha, progress=progress)
    )


def measure_trust_of_runs(
    folders: Sequence[Path], data: str | Path | None = None, *, ensemble: bool = False, progress: Progress = SILENT
) -> list[TrustedRun]:
    """`measure_trust` of every trained run at or below some folders, or of their ensembles.

    Arguments and errors are those of `measure_trust`. `progress` is also told of runs that are left out, those without
    an unseen domain among them.
    """
    return _of_units(folders, ensemble, progress, lambda unit: measure_trust(unit, data, progress=progress))


def _of_units(
    folders: Sequence[Path], ensemble: bool, progress: Progress, work: Callable[[RunFolder], Result | None]
) -> list[Result]:
    """What some work gives of each run or ensemble, without those of which it gives None."""
    runs = trained_runs(folders, progress=progress)
    units: Sequence[RunFolder] = ensembles_of(runs, progress=progress) if ensemble else runs
    found: list[Result] = []
    untrusted: list[tuple[Path, UntrustedError]] = []
    for unit in units:
        try:
            made = work(unit)
        except UntrustedError as error:
            untrusted.append((unit.path, error))
        else:
            found += [] if made is None else [made]
    tell_untrusted(untrusted, progress, alone=not found)
    return found


def calibrate_trust(
    run: RunFolder, data: str | Path | None = None, *, alpha: float = ALPHA, progress: Progress = SILENT
) -> TrustSummary | None:
    """Calibrate the trust in a run's `best`, or in an ensemble of some, and write trust.json into its folder.

    The calibration cases are the `calibrate` halves of the training domains' test splits, which trained nothing and
    chose no checkpoint. The predicted DSC is fitted on them and on altered copies of them, the interval of the vertical
    cup-to-disc ratio on them alone. The unseen domain has no part in it.

    Args:
        run: a trained run, or an ensemble.
        data: data root; None for the one that the run was trained on.
        alpha: probability, at most, that an interval misses the true ratio.
        progress: shows what is done, and is told what the trust was calibrated on.

    Returns:
        What it was calibrated on; None for a network that sees photographs at their own size, which is left out.

    Raises:
        RunError: the run is not trained, or another process is writing into it; or runs of an ensemble do not fit.
        CheckpointError: the checkpoint is not of the network that the run's settings name.
        DataError: the photographs are not those that the run was made with, or a training domain has none in the half
            for calibration.
    """
    unit = _unit(run, data, progress)
    if unit is None:
        return None
    summary = _summary(unit, _calibrate(unit, alpha, progress))
    progress.line(f"{run.path}: trust {summary.text}")
    return summary


def measure_trust(run: RunFolder, data: str | Path | None = None, *, progress: Progress = SILENT) -> TrustedRun | None:
    """Measure the trust in a run or an ensemble on its unseen domain; one that is not calibrated is calibrated first.

    Arguments and errors are those of `calibrate_trust`.

    Returns:
        None for a network that no domain is unseen by, or that sees photographs at their own size: `progress` is told.
    """
    reason = why_not_unseen(members_of(run)[0].read_config())
    if reason:
        progress.left_out("run", f"in trust on the unseen domain ({reason})", [run.path])
        return None
    unit = _unit(run, data, progress)
    if unit is None:
        return None
    trust = read_trust(run.path, unit.checkpoints)
    if trust is None:
        progress.line(f"{run.path}: trust is not calibrated yet; doing so, as `fundus-seg calibrate` does")
        trust = _calibrate(unit, ALPHA, progress)
    return _measured(unit, trust, progress)


@dataclass(frozen=True)
class _Unit:
    """A run or an ensemble, and all that is needed to predict with it.

    Attributes:
        folder: its folder.
        runs: its runs.
        settings: the settings of each.
        content: all that the first one's config.yaml holds.
        root: where the photographs are.
        checkpoints: the digest of each run's `best`.
    """

    folder: RunFolder
    runs: Sequence[RunFolder]
    settings: Sequence[ResolvedRun]
    content: dict[str, Any]
    root: DataRoot
    checkpoints: Sequence[str]

    @property
    def config(self) -> ResolvedRun:
        """The settings of the first run."""
        return self.settings[0]

    def watched(self) -> Any:
        """What predicts, and is watched."""
        from fundus_seg.evaluation.predictions import segmenter_of  # imports torch
        from fundus_seg.inference.watched import Watched

        scoring = combined(self.config.scoring, ensemble=len(self.runs) > 1)
        return Watched(segmenter_of(self.runs, self.settings, "best", scoring))


def _unit(run: RunFolder, data: str | Path | None, progress: Progress) -> _Unit | None:
    runs = members_of(run)
    settings = [trained_settings(each) for each in runs]
    refuse_unlike(runs, settings, scoring=True)
    config, content = settings[0]
    if config.scoring.inference == "native":
        progress.left_out("run", "in trust (its network sees photographs at their own size)", [run.path])
        return None
    checkpoints = [file_digest(each.checkpoint("best")) for each in runs]
    return _Unit(
        run, runs, [own for own, _ in settings], content, data_of(content, data, progress=progress), checkpoints
    )


def _calibrate(unit: _Unit, alpha: float, progress: Progress) -> TrustCalibration:
    from fundus_seg.evaluation.trust_cases import COPIES, altered_cases, make_reference, trust_cases

    config, root, run = unit.config, unit.root, unit.runs[0]
    training = [split_cases(run, unit.content, root, domain, "train") for domain in config.data.sources]
    cases = cases_to_score("in-domain", run, unit.content, root, config)
    splits = [f"{domain}/{split}" for domain in config.data.sources for split in ("train", "test")]
    unit.folder.path.mkdir(exist_ok=True)  # of an ensemble, which may have no scores yet
    with leased(unit.folder.path), reproducible(config.train.threads):
        watched = unit.watched()
        reference = make_reference(watched, unit.checkpoints, training, config)
        with progress.task(f"calibrating trust of {unit.folder.path}", total=len(cases) * (1 + COPIES)) as advance:
            seen = watched, reference, unit.checkpoints
            originals = trust_cases(*seen, cases, advance)
            copies = altered_cases(*seen, cases, root, config, progress=progress, advance=advance)
        known = [case for case in originals if not math.isnan(case.vcdr + case.vcdr_truth)]
        ends = np.array([(min(case.ratios), max(case.ratios), case.vcdr_truth) for case in known]).reshape(-1, 3)
        scores = outside(*ends.T)
        names = [*names_of(STRUCTURES[0]), *(name for name in names_of(STRUCTURES[1]) if STRUCTURES[1] in name)]
        trust = TrustCalibration(
            checkpoints=sorted(unit.checkpoints),
            domains=dict(Counter(case.domain for case in originals)),
            data={split: unit.content["inputs"][split] for split in splits},
            copies=COPIES,
            reference=reference,
            disc=_quality([*originals, *copies], 0),
            cup=_quality([*originals, *copies], 1),
            interval=Interval(
                alpha=alpha,
                margin=conformal_margin(scores, alpha),
                scores=scores.tolist(),
                signals={name: _finite([case.signals.values[name] for case in known]) for name in names},
            ),
            versions=versions(),
        )
        write_trust(unit.folder.path, trust)
    return trust


def _quality(cases: Sequence[Any], number: int) -> Quality | None:
    """The fit of one structure's DSC, on the cases that have a mask and a truth of it."""
    own = [case for case in cases if not (case.signals.empty[number] or math.isnan(case.dsc[number]))]
    return fit_quality(
        {name: [case.signals.values[name] for case in own] for name in names_of(STRUCTURES[number])},
        [case.dsc[number] for case in own],
        [case.domain for case in own],
        [case.original for case in own],
    )


def _measured(unit: _Unit, trust: TrustCalibration, progress: Progress) -> TrustedRun:
    from fundus_seg.evaluation.trust_cases import trust_cases

    cases: list[Case] = cases_to_score("holdout", unit.runs[0], unit.content, unit.root, unit.config)
    with reproducible(unit.config.train.threads):
        watched = unit.watched()
        with progress.task(f"trust of {unit.folder.path}", total=len(cases)) as advance:
            found = trust_cases(watched, trust.reference, unit.checkpoints, cases, advance)
    interval = trust.interval
    margins, effective = [None] * len(found), math.nan
    if interval.margin is not None:
        own = [[case.signals.values[name] for name in interval.signals] for case in found]
        weights, at_cases = density_ratio(np.column_stack(list(interval.signals.values())), np.array(own))
        margins = weighted_margins(interval.scores, weights, at_cases, interval.alpha).tolist()
        effective = effective_cases(weights)
    rows, weighted = [], []
    for case, margin in zip(found, margins, strict=True):
        scores = {f"dsc_{structure}": score for structure, score in zip(STRUCTURES, case.dsc, strict=True)}
        ratios = {"vcdr": case.vcdr, "vcdr_truth": case.vcdr_truth}
        identity = {"domain": case.domain, "case": case.name, "patient": case.patient}
        values = trust.values(case.signals, case.vcdr)
        rows.append({**identity, **scores, **ratios, **values, **case.signals.values})
        weighted.append(dict(zip(("vcdr_low", "vcdr_high"), interval.around(case.ratios, margin), strict=True)))
    summary = replace(_summary(unit, trust), phantom=any_phantom(cases, unit.content, unit.root))
    return TrustedRun(summary, pd.DataFrame(rows), effective, pd.DataFrame(weighted))


def _summary(unit: _Unit, trust: TrustCalibration) -> TrustSummary:
    identity = recorded_identity(unit.runs[0], unit.config, unit.content)
    if isinstance(unit.folder, RunEnsemble):
        identity = replace(identity, seed=0)
    qualities = {structure: trust.quality(structure) for structure in STRUCTURES}
    margin = trust.interval.margin
    return TrustSummary(
        identity.column(unit.config.train.selection),
        identity.holdout,
        identity.seed,
        len(unit.runs),
        unit.root.phantom,
        trust.domains,
        trust.interval.alpha,
        len(trust.interval.scores),
        math.nan if margin is None else margin,
        trust.interval.lacking,
        {structure: own.error if own else math.nan for structure, own in qualities.items()},
    )


def _finite(values: Sequence[float]) -> list[float]:
    """The values; what is not finite counts as the largest that is."""
    table = np.asarray(values, float)
    finite = np.isfinite(table)
    return [float(value) for value in np.where(finite, table, table[finite].max() if finite.any() else 0.0)]
