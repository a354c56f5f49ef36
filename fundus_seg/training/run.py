"""The folder of a run: where it lies, and whether what is there already is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundus_seg.config import RunConfig, flatten
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import RunError, UsageError, unknown_name
from fundus_seg.provenance import provenance
from fundus_seg.records import RunFolder

RUN_FORMAT = 1


def resolve_sources(config: RunConfig, root: DataRoot) -> RunConfig:
    """The same settings with `data.sources` spelt out.

    Raises:
        UsageError: a holdout or source that is not in the data root, a holdout among the sources, or no source.
    """
    sources = config.data.sources
    if sources is None:
        sources = tuple(domain for domain in root.domains if domain != config.holdout)
    for domain in (config.holdout, *sources):
        if domain not in root.domains:
            raise UsageError(f"{unknown_name('domain', domain, root.domains)} in {root.path}")
    if config.holdout in sources or not sources or len(set(sources)) < len(sources):
        raise UsageError(
            f"data.sources {list(sources)} with holdout {config.holdout}: "
            "name one or more other domains, each once; the holdout never trains"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def run_folder(config: RunConfig, root: DataRoot, out: Path) -> RunFolder:
    """Where the run with these resolved settings lies below `out`; the phantom's runs lie apart."""
    base = out / "phantom" if root.phantom else out
    slug = config.slug(standard_sources=[key for key in root.experiment if key != config.holdout])
    return RunFolder(base / config.preset / config.holdout / slug / f"seed-{config.seed}")


def claim(folder: RunFolder, config: RunConfig, inputs: Mapping[str, str], surroundings: Mapping[str, Any]) -> int:
    """Begin the run in `folder`, or take up the same run that is there; give its number of CPU threads.

    Args:
        folder: the run's folder.
        config: resolved settings.
        inputs: digests of what the settings name but do not contain: data, encoder weights.
        surroundings: provenance to record beside the versions: data root, phantom, threads.

    Raises:
        RunError: the folder holds a run of other settings or inputs; the differing keys are named.
    """
    settings = config.model_dump(mode="json")
    if folder.config.exists():
        there = folder.read_config()
        before = flatten({key: there.get(key) for key in settings} | {"inputs": there["inputs"]})
        now = flatten(settings | {"inputs": dict(inputs)})
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if differing:
            changes = ", ".join(f"{key}: {before.get(key)} there, {now.get(key)} now" for key in differing)
            raise RunError(f"{folder.path}: holds another run ({changes}); choose another --out, or delete it")
        return int(there["provenance"]["threads"])
    folder.write_config(
        {"format": RUN_FORMAT, **settings, "inputs": dict(inputs), "provenance": {**provenance(), **surroundings}}
    )
    return int(surroundings["threads"])
