"""The data of one run: what trains, what may choose the checkpoint, and the digests of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.config import RunConfig
from fundus_seg.data.cache import ResizedSplit, load_resized
from fundus_seg.data.files import Split
from fundus_seg.data.layout import DataRoot
from fundus_seg.digests import file_digest
from fundus_seg.errors import DataError, Problem, Problems
from fundus_seg.plugins import load
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import source_half
from fundus_seg.training.selection import ValidationSet

_Splits = dict[str, ResizedSplit]


@dataclass(frozen=True)
class RunData:
    """What a run reads.

    Attributes:
        sources: the training split of each source domain, by domain.
        validation: the cases that may choose the checkpoint, by domain; none for the selection `last`.
        inputs: digests of all that the settings name but do not contain: each split, by `domain/split`, a file of
            encoder weights, and the source of each plugin, by its setting.
    """

    sources: Mapping[str, ResizedSplit]
    validation: Mapping[str, ValidationSet]
    inputs: Mapping[str, str]


def load_run_data(config: RunConfig, root: DataRoot, *, progress: Progress = SILENT) -> RunData:
    """The data of the run with these settings, sources spelt out.

    Raises:
        DataError: files that cannot be used or must not train, those of all splits in one list; too few cases to
            select on.
        UsageError: a plugin that cannot be loaded.
    """
    sources = {setting: load(name).digest for setting, name in config.plugins().items()}
    assert config.data.sources is not None
    domains: dict[Split, tuple[str, ...]] = {
        "train": config.data.sources,
        "test": (*config.data.sources, config.holdout),
    }
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
    unusable.found += _leaks(config.holdout, loaded)
    unusable.refuse("problems with the data")
    inputs = {f"{domain}/{split}": each.digest for split in loaded for domain, each in loaded[split].items()}
    weights = config.model.encoder_weights
    if weights not in ("imagenet", "none") and Path(weights).is_file():
        inputs["encoder_weights"] = file_digest(Path(weights))[:16]
    return RunData(loaded["train"], _validation_sets(config, loaded["test"]), inputs | sources)


def _leaks(holdout: str, loaded: Mapping[Split, _Splits]) -> list[Problem]:
    """The photographs that a source shares with the holdout's test split; `data check` finds altered copies too."""
    if holdout not in loaded["test"]:
        return []
    scored = dict(zip(loaded["test"][holdout].photographs, loaded["test"][holdout].names, strict=True))
    return [
        Problem(
            f"the same photograph as {holdout}/test/{scored[digest]}, which is to be unseen; "
            "take it out of one of them",
            f"{domain}/{split}/{name}",
        )
        for split, domains in loaded.items()
        for domain, each in domains.items()
        if domain != holdout
        for name, digest in zip(each.names, each.photographs, strict=True)
        if digest in scored
    ]


def _validation_sets(config: RunConfig, tests: _Splits) -> dict[str, ValidationSet]:
    """The cases that may choose the checkpoint: none of the holdout's, unless the selection is `oracle`."""
    if config.train.selection == "last":
        return {}
    if config.train.selection == "oracle":
        held_out = tests[config.holdout]
        return {config.holdout: ValidationSet(held_out, range(len(held_out.names)))}
    assert config.data.sources is not None
    sets = {
        domain: ValidationSet(
            tests[domain], [i for i, name in enumerate(tests[domain].names) if source_half(name) == "select"]
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
