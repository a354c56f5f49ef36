"""The cases that a run is scored on: of the domain that it never saw, or of those that it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import PlannedRun
from fundus_seg.data.cache import load_resized
from fundus_seg.data.files import Case
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import DataError
from fundus_seg.evaluation.records import Scored
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import source_half
from fundus_seg.runs.folder import RunFolder


def cases_to_score(
    scored: Scored,
    run: RunFolder,
    inputs: Mapping[str, str],
    root: DataRoot,
    config: PlannedRun,
    *,
    progress: Progress = SILENT,
) -> tuple[Sequence[Case], NDArray[np.uint8]]:
    """The cases, and their photographs at the training size, (N, S, S, 3).

    Args:
        scored: which ones.
        run: named in errors.
        inputs: digests of the splits that the run was made with, by `domain/split`.
        root: where the photographs are.
        config: the run's settings, sources named.
        progress: where to show it.

    Raises:
        DataError: a split is not what the run was made with, or a source domain has no case in its `calibrate` half.
    """
    if scored == "holdout":
        return _test_cases(run, inputs, root, config, config.holdout, progress)
    cases: list[Case] = []
    images: list[NDArray[np.uint8]] = []
    for domain in config.data.sources:
        own, photographs = _test_cases(run, inputs, root, config, domain, progress)
        kept = [number for number, case in enumerate(own) if source_half(case.name) == "calibrate"]
        if not kept:
            raise DataError(
                f"{root.path}: too few test cases of {domain} ({len(own)}): none falls into the half for in-domain "
                "scores; leave --in-domain out"
            )
        cases += [own[number] for number in kept]
        images.append(photographs[kept])
    return cases, np.concatenate(images)


def truth_name(case: Case, scored: Scored) -> str:
    """A case's name among those that are scored with it; two source domains may each have an `n0001`."""
    return case.name if scored == "holdout" else f"{case.domain}/{case.name}"


def _test_cases(
    run: RunFolder, inputs: Mapping[str, str], root: DataRoot, config: PlannedRun, domain: str, progress: Progress
) -> tuple[Sequence[Case], NDArray[np.uint8]]:
    cases = root.cases(domain, "test")
    split = load_resized(cases, config.data, progress=progress)
    recorded = inputs.get(f"{domain}/test")
    if split.digest != recorded:
        raise DataError(
            f"{root.path}: {domain}/test is not what {run.path} was made with "
            f"(digest {split.digest}, recorded {recorded}); give its data with --data"
        )
    return cases, split.images
