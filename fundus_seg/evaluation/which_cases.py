"""The cases that a run is scored on: those of the domain that it never saw, or some of the domains that it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import PlannedRun, ResolvedRun
from fundus_seg.data.cache import load_resized, odd_masks, split_digest
from fundus_seg.data.coding import CODINGS, Merge
from fundus_seg.data.dataset import Truth, read_readers, read_truth
from fundus_seg.data.files import Case, Split
from fundus_seg.data.layout import DataRoot, of_phantom, open_root
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError, FundusSegError, NoReadersError, RunError, counted
from fundus_seg.evaluation.records import Scored
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import NONE_UNSEEN, ByReader, Scoring, source_half
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.origin import why_not_unseen
from fundus_seg.runs.record import recorded_settings, saw_phantom


def trained_settings(run: RunFolder) -> tuple[ResolvedRun, dict[str, Any]]:
    """The settings of a trained run, and all that its config.yaml holds.

    Raises:
        RunError: the run is not trained to its end.
    """
    content = run.read_config()
    if not run.has("TRAINED"):
        raise RunError(f"{run.path}: not trained to its end; the same `fundus-seg train` command goes on with it")
    return recorded_settings(run), content


def data_of(content: Mapping[str, Any], data: str | Path | None, *, progress: Progress = SILENT) -> DataRoot:
    """The data root that the caller names, or else the one that the run with this config.yaml was trained on."""
    least = 1 if content.get("holdout") == NONE_UNSEEN else 2
    return open_root(data if data is not None else content["provenance"]["data_root"], least=least, progress=progress)


def any_phantom(cases: Iterable[Case], content: Mapping[str, Any], root: DataRoot) -> bool:
    """Whether a case is the phantom's: scores of patients stay theirs, whatever else trained the network.

    Where no photograph of the root is known as the phantom's, what the run recorded of them when it began counts.

    Args:
        cases: those that are scored.
        content: all that the run's config.yaml holds.
        root: where the photographs are.
    """
    return any(of_phantom(case.image) for case in cases) or (saw_phantom(content) and not root.phantom)


def cases_to_score(
    scored: Scored, run: RunFolder, content: Mapping[str, Any], root: DataRoot, config: PlannedRun
) -> list[Case]:
    """The cases, domain by domain. Their files are compared with those that the run was made with, but not decoded.

    Args:
        scored: the holdout's test split, or those halves of the source domains' test splits that chose no checkpoint.
        run: named in errors.
        content: all that its config.yaml holds; `inputs` are the digests of the splits that the run was made with.
        root: where the photographs are.
        config: the run's resolved settings.

    Raises:
        RunError: the holdout's cases are asked for, but no domain is unseen by the run's network.
        DataError: a split is not what the run was made with, and how it differs; or a source domain has no case in its
            `calibrate` half.
    """
    if scored == "holdout":
        if why := why_not_unseen(content):
            raise RunError(f"{run.path}: {why}: no domain is unseen by its network; it has in-domain scores alone")
        return split_cases(run, content, root, config.holdout, "test")
    cases: list[Case] = []
    for domain in config.data.sources:
        own = split_cases(run, content, root, domain, "test")
        kept = [case for case in own if source_half(case.subject) == "calibrate"]
        if not kept:
            raise DataError(
                f"{root.path}: too few test cases of {domain} ({len(own)}): none falls into the half `calibrate`, for "
                "in-domain scores and temperatures; add some, or leave --in-domain out if another domain is unseen"
            )
        cases += kept
    return cases


def photographs_of(
    cases: Sequence[Case], root: DataRoot, config: PlannedRun, *, progress: Progress = SILENT
) -> NDArray[np.uint8]:
    """The photographs of `cases_to_score` at the training size, (N, S, S, 3), in the same order.

    `progress` is warned of what is odd about the masks of their splits.
    """
    images = []
    for domain in dict.fromkeys(case.domain for case in cases):
        split = load_resized(root.cases(domain, "test"), config.data, progress=progress)
        for odd in split.odd:
            progress.warn(odd)
        wanted = [split.names.index(case.name) for case in cases if case.domain == domain]
        images.append(split.images if wanted == [*range(len(split.names))] else split.images[wanted])
    return images[0] if len(images) == 1 else np.concatenate(images)


def warn_of_odd_masks(
    cases: Sequence[Case], root: DataRoot, config: PlannedRun, *, progress: Progress = SILENT
) -> None:
    """Warn again of what `photographs_of` found odd, without reading a photograph."""
    for domain in dict.fromkeys(case.domain for case in cases):
        for odd in odd_masks(root.cases(domain, "test"), config.data):
            progress.warn(odd)


def cases_of_readers(cases: Sequence[Case], root: DataRoot) -> list[Case]:
    """The cases that some reader drew.

    Raises:
        NoReadersError: the domain does not keep its readers apart.
    """
    domain = cases[0].domain
    drawn = [case for case in cases if case.readers]
    if not drawn:
        raise NoReadersError(
            f"domain {domain} does not keep its readers apart: write `annotators: {{names: [...]}}` into it, and "
            "`{annotator}` into its patterns of masks, in a YAML file that describes the domains (docs/domains.md)",
            root.path,
        )
    return drawn


def readers_by(scoring: Scoring, case: Case) -> tuple[str, ...]:
    """The readers whose masks of a case are the truth by a protocol; of the merged truth, one without a name."""
    return tuple(reader for reader, _ in case.readers) if isinstance(scoring, ByReader) else ("",)


def truths_by(scoring: Scoring, case: Case) -> list[Truth]:
    """The true masks of a case by a protocol: those of each of `readers_by`."""
    return read_readers(case) if isinstance(scoring, ByReader) else [read_truth(case)]


def readers_digest(cases: Sequence[Case]) -> str:
    """The digest of the mask files of all readers."""
    drawn = [(case.name, asdict(case.annotation), reader, own) for case in cases for reader, own in case.readers]
    return short_hash([[*identity, [*map(file_digest, own)]] for *identity, own in drawn], digits=16)


def truth_name(case: Case, scored: Scored) -> str:
    """A case's name among those that are scored with it; two source domains may each have an `n0001`."""
    return case.name if scored == "holdout" else f"{case.domain}/{case.name}"


def split_cases(run: RunFolder, content: Mapping[str, Any], root: DataRoot, domain: str, split: Split) -> list[Case]:
    """The cases of one split of one domain, which are those that the run was made with.

    Raises:
        DataError: they are not, and how they differ.
        UsageError: the domain is not in the data root.
    """
    cases = root.cases(domain, split)
    digest, recorded = split_digest(cases), content["inputs"].get(f"{domain}/{split}")
    if digest != recorded:
        raise DataError(
            f"{root.path}: {domain}/{split} is not what {run.path} was made with (digest {digest}, recorded "
            f"{recorded}): {_difference(cases, domain, split, recorded, content['provenance'])}; give its data with "
            "--data"
        )
    return list(cases)


def _difference(
    cases: Sequence[Case], domain: str, split: Split, recorded: str | None, provenance: Mapping[str, Any]
) -> str:
    """How cases differ from those that a run was made with, as far as that can be told."""
    for coding, merge in product((*CODINGS.values(), None), get_args(Merge)):
        read = [replace(case, annotation=replace(case.annotation, coding=coding, merge=merge)) for case in cases]
        if split_digest(read) == recorded:
            return (
                "photographs and masks are the same, but the coding of the masks, or how annotators are merged, differs"
            )
    if split_digest([replace(case, patient=None) for case in cases]) == recorded:
        return "photographs and masks are the same, but the run was made before it was known whose eyes they are"
    where = provenance.get("data_root")
    there: tuple[Case, ...] = ()
    with suppress(FundusSegError):
        there = open_root(where).cases(domain, split)
    if not there or split_digest(there) != recorded:
        what = "photographs, masks, names, coding or patients"
        return f"{what}; which of them cannot be told, since {where} has changed too"
    before = {case.name: case for case in there}
    both = [(case, before[case.name]) for case in cases if case.name in before]
    photographs = sum(file_digest(one.image) != file_digest(other.image) for one, other in both)
    masks = sum(_mask_digests(one) != _mask_digests(other) for one, other in both)
    found = {
        f"{counted(len(cases) - len(both), 'further case')}": len(cases) > len(both),
        f"{counted(len(there) - len(both), 'missing case')}": len(there) > len(both),
        f"{photographs} of {counted(len(both), 'photograph')} with other content": photographs,
        f"{masks} of {counted(len(both), 'mask')} with other content": masks,
        "other patients": any(one.patient != other.patient for one, other in both),
        "another coding of masks": any(one.annotation != other.annotation for one, other in both),
    }
    return f"compared with {where} it has {', '.join(text for text, differs in found.items() if differs)}"


def _mask_digests(case: Case) -> list[list[str]]:
    return [[file_digest(path) for path in files] for files in case.masks]
