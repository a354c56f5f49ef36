"""The data of one run: the cases that train, the cases that may choose the checkpoint, and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.config import DataConfig, PlannedRun
from fundus_seg.data.cache import ResizedSplit, load_resized
from fundus_seg.data.files import SPLITS, Split
from fundus_seg.data.framing import Framing, domain_framings
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.patients import shared_patients
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, Problem, Problems, RunError, counted
from fundus_seg.plugins import load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import SELECTIONS, source_half
from fundus_seg.runs.atomic import write_json
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.origin import origin_of, plain, start_file, why_not_unseen

_Splits = dict[str, ResizedSplit]


@dataclass(frozen=True)
class ValidationSet:
    """The cases of one domain that may choose a checkpoint: indices into a split at the training size."""

    split: ResizedSplit
    cases: Sequence[int]

    @classmethod
    def whole(cls, split: ResizedSplit) -> ValidationSet:
        """Every case of a split."""
        return cls(split, range(len(split.names)))


@dataclass(frozen=True)
class RunData:
    """The data that a run reads.

    Attributes:
        sources: the training split of each source domain, by domain.
        validation: the cases that may choose the checkpoint, by domain; empty for a selection that looks at none.
        inputs: digests of what the settings name but do not contain: each split, by `domain/split`; a file of encoder
            weights, or the checkpoint that the run starts from; the source file of each plugin, by its setting.
        photographs: a digest of each photograph's pixels at the training size, by `domain/split`.
        origin: what a checkpoint says of the photographs that trained it, in plain values: `phantom`, whether they are
            the phantom's; `framing`, the `low` and `high` of `data.framing.Framing`; and `framings`, these of each
            source domain and its `median`.
    """

    sources: Mapping[str, ResizedSplit]
    validation: Mapping[str, ValidationSet]
    inputs: Mapping[str, str]
    photographs: Mapping[str, Sequence[str]]
    origin: Mapping[str, Any]


def load_run_data(config: PlannedRun, root: DataRoot, *, progress: Progress = SILENT) -> RunData:
    """The data of the run with these settings.

    Raises:
        DataError: files that cannot be used or must not train, listed for all splits at once; or too few cases to
            select on.
        UsageError: a plugin that cannot be loaded.
    """
    plugins = {setting: load(name).digest for setting, name in config.plugins().items()}
    sources = config.data.sources
    domains: dict[Split, tuple[str, ...]] = {"train": sources, "test": (*sources, *config.unseen)}
    loaded: dict[Split, _Splits] = {"train": {}, "test": {}}
    unusable = Problems()
    for split, keys in domains.items():
        for domain in keys:
            found = root.split(domain, split)
            unusable.found += found.problems
            if found.cases:  # complete cases are read even if others are not, so that all problems are listed at once
                with unusable.gather():
                    loaded[split][domain] = load_resized(found.cases, config.data, progress=progress)
    unusable.found += [problem for split in loaded["train"].values() for problem in split.problems]
    photographs = {
        f"{domain}/{split}": [*map(_pixels, each.images)] for split in loaded for domain, each in loaded[split].items()
    }
    unusable.found += _leaks(config.holdout, loaded, photographs)
    _tell_partial(loaded, unusable, progress)
    for odd in (line for split in loaded.values() for each in split.values() for line in each.odd):
        progress.warn(odd)
    unusable.refuse("problems with the data")
    _warn_of_shared_patients(config, root, progress)
    inputs = {f"{domain}/{split}": each.digest for split in loaded for domain, each in loaded[split].items()}
    validation = _validation_sets(config, loaded["test"])
    inputs |= _start(config) | plugins
    if validation and not any(each.split.annotated[list(each.cases), 1].any() for each in validation.values()):
        progress.warn("nobody has annotated a cup in the cases that choose the checkpoint: the disc alone chooses")
    return RunData(loaded["train"], validation, inputs, photographs, _origin(loaded["train"], root))


def _tell_partial(loaded: Mapping[Split, _Splits], unusable: Problems, progress: Progress) -> None:
    """Say in how many cases nobody has annotated the cup; it is a problem if that is so of all that train."""
    for split, domains in loaded.items():
        lacking = {domain: int(np.sum(~each.annotated[:, 1])) for domain, each in domains.items()}
        for domain, count in lacking.items():
            if count:
                what = "train" if split == "train" else "are scored on"
                total = len(domains[domain].names)
                progress.line(f"{domain}/{split}: cup not annotated: {count} of {total}; these {what} the disc alone")
    train = loaded["train"]
    if train and not any(each.annotated[:, 1].any() for each in train.values()):
        unusable.add(
            f"nobody has annotated a cup in {', '.join(train)}, so that none would be learnt: add a domain with cups"
        )


def _start(config: PlannedRun) -> dict[str, str]:
    """Digests of the files that the run starts from, where they are there; a network takes the place of an encoder."""
    start, weights = config.model.start, config.model.encoder_weights
    files = {"encoder_weights": Path(weights)} if weights not in ("imagenet", "none") else {}
    if start != "none":
        files = {"start": start_file(start)}
    return {key: file_digest(path)[:16] for key, path in files.items() if path.is_file()}


def new_provenance(config: PlannedRun, data: RunData) -> dict[str, Any]:
    """What a run that begins now records of its photographs and of the network that it starts from, in plain values.

    `photographs` counts those of each source domain that train, `origin` is that of `fundus_seg.runs.origin`, with the
    number of the holdout's photographs that trained it.

    Raises:
        CheckpointError, RunError: as `origin_of`.
    """
    counts = {domain: len(split.names) for domain, split in data.sources.items()}
    told = {"photographs": counts, **data.origin}
    if config.model.start != "none":
        tested = {digest for domain in config.unseen for digest in data.photographs[f"{domain}/test"]}
        seen = seen_photographs(config.model.start, config.data)
        told["origin"] = plain(replace(origin_of(config.model.start), shared=len(seen & tested)))
    return told


def record_photographs(folder: RunFolder, config: PlannedRun, data: RunData) -> None:
    """Record which photographs a new run's network will have seen: those that train or choose, and its origin's.

    Those of the holdout stand apart: a probe lets them choose the checkpoint `oracle`, and no other.
    """
    chose = config.unseen if SELECTIONS[config.train.selection].cases == "holdout" else ()
    places = [where for where in data.photographs if where.split("/")[0] in (*config.data.sources, *chose)]
    own = {digest for where in places for digest in data.photographs[where]}
    earlier = seen_photographs(config.model.start, config.data) if config.model.start != "none" else set()
    tested = {digest for domain in config.unseen for digest in data.photographs[f"{domain}/test"]}
    content = {**_frames(config.data), "seen": sorted(own | earlier), "holdout": sorted(tested)}
    write_json(folder.photographs, content)


def seen_photographs(start: str, data: DataConfig) -> set[str]:
    """The photographs that the run of a checkpoint has recorded as seen; none where it saw them at another size.

    Args:
        start: a run or a checkpoint, as in `model.start`.
        data: the size, and how photographs are resized to it.

    Raises:
        RunError: its photographs.json is damaged.
    """
    file = start_file(start).resolve()
    path = RunFolder(file.parents[1]).photographs
    try:
        content = json.loads(path.read_text("utf8"))
        same_frames = all(content[key] == value for key, value in _frames(data).items())
        seen = [*content["seen"], *(content.get("holdout", ()) if file.stem == "oracle" else ())]
        return set(map(str, seen)) if same_frames else set()
    except FileNotFoundError:  # of an earlier version, or the checkpoint lies outside its run's folder
        return set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path}: damaged, so that nobody knows which photographs the network has seen; restore the file, or train "
            "that run again in another --out"
        ) from error


def _frames(data: DataConfig) -> dict[str, Any]:
    return {"size": data.size, "image_interpolation": data.image_interpolation}


def seen_by_start(config: PlannedRun, data: RunData, provenance: Mapping[str, Any]) -> str:
    """Why the holdout is not unseen by the network that a new run starts from; empty where it is, or there is none.

    Args:
        config: settings of the run.
        data: its data.
        provenance: as `new_provenance` gives it.
    """
    if config.model.start == "none" or not config.unseen:
        return ""
    return why_not_unseen({**config.model_dump(mode="json"), "inputs": data.inputs, "provenance": provenance})


def _origin(sources: _Splits, root: DataRoot) -> dict[str, Any]:
    """What a checkpoint says of the photographs that trained it."""
    discs = {domain: split.masks[:, 0] for domain, split in sources.items()}
    framing = Framing.of(np.concatenate([*discs.values()]))
    return {"phantom": root.phantom, "framing": framing and asdict(framing), "framings": domain_framings(discs)}


def _leaks(holdout: str, loaded: Mapping[Split, _Splits], photographs: Mapping[str, Sequence[str]]) -> list[Problem]:
    """The photographs that a source shares with the holdout's test split, saved in whatever form.

    They are told by their pixels at the training size. `data check` finds altered copies too.
    """
    if holdout not in loaded["test"]:
        return []
    scored = dict(zip(photographs[f"{holdout}/test"], loaded["test"][holdout].names, strict=True))
    return [
        Problem(
            f"the same photograph as {holdout}/test/{scored[digest]}, which is to be unseen; "
            "take it out of one of them",
            f"{domain}/{split}/{name}",
        )
        for split, domains in loaded.items()
        for domain, each in domains.items()
        if domain != holdout
        for name, digest in zip(each.names, photographs[f"{domain}/{split}"], strict=True)
        if digest in scored
    ]


def _warn_of_shared_patients(config: PlannedRun, root: DataRoot, progress: Progress) -> None:
    """Warn of patients of the holdout's test split who have other eyes in a source domain."""
    places: list[tuple[str, Split]] = [(domain, "test") for domain in config.unseen]
    places += [(domain, split) for domain in config.data.sources for split in SPLITS]
    cases = [case for domain, split in places for case in root.split(domain, split).cases]
    unseen = [one for one, other in shared_patients(cases, root.patients) if one.domain in config.unseen]
    if shared := sorted({case.subject for case in unseen}):
        progress.warn(
            f"{counted(len(shared), 'patient')} of {config.holdout}/test, {shared[0]} first, with other eyes in a "
            "source domain, so that these scores are not of unseen patients; `fundus-seg data check` lists them"
        )


def _pixels(image: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()


def _validation_sets(config: PlannedRun, tests: _Splits) -> dict[str, ValidationSet]:
    """The cases that may choose the checkpoint, as the run's selection says."""
    cases = SELECTIONS[config.train.selection].cases
    if cases is None:
        return {}
    if cases == "holdout":
        return {config.holdout: ValidationSet.whole(tests[config.holdout])}
    sets = {
        domain: ValidationSet(
            tests[domain], [i for i, subject in enumerate(tests[domain].subjects) if source_half(subject) == "select"]
        )
        for domain in config.data.sources
    }
    empty = [f"{domain} ({len(tests[domain].names)})" for domain, chosen in sets.items() if not chosen.cases]
    if empty:
        raise DataError(
            f"too few test cases of {', '.join(empty)}: none falls into the half that selects; "
            "add some, or take --set train.selection=last"
        )
    return sets
