"""The folder of a run: where it lies, and whether what is there already is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundus_seg.config import RunConfig, flatten
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import RunError, UsageError, unknown_name
from fundus_seg.progress import Progress
from fundus_seg.provenance import changes, provenance
from fundus_seg.records import RunFolder
from fundus_seg.training.machine import machine_choices

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
    if len(sources) * config.train.batch_per_domain < 2:
        raise UsageError("train.batch_per_domain 1 with one source: batch norms need two or more cases in a batch")
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def run_folder(config: RunConfig, root: DataRoot, out: Path) -> RunFolder:
    """Where the run with these resolved settings lies below `out`; the phantom's runs lie apart."""
    base = out / "phantom" if root.phantom else out
    return RunFolder(base / config.preset / config.holdout / operator_name(config, root) / f"seed-{config.seed}")


def operator_name(config: RunConfig, root: DataRoot) -> str:
    """The operator with the slug of what differs from its preset: a folder's name, and a table's column."""
    return config.slug(all_domains=root.experiment)


def take_up(folder: RunFolder, config: RunConfig, inputs: Mapping[str, str], *, progress: Progress) -> RunConfig:
    """The settings to run with in `folder`, the machine's spelt out: a new run's, or of the same run if it is there.

    Args:
        folder: the run's folder, which need not exist.
        config: settings, sources spelt out.
        inputs: digests of what the settings name but do not contain: data, encoder weights.
        progress: told what differs from the machine and the versions that the run began on.

    Raises:
        RunError: the folder holds a run of other settings or inputs; the differing keys are named.
    """
    there = folder.read_config() if folder.config.exists() else None
    config = _for_machine(config, there)
    if there is None:
        return config
    now = config.recipe() | flatten({"inputs": dict(inputs)})
    recorded = _recorded(there)
    before = {key: recorded.get(key) for key in now} | flatten({"inputs": there["inputs"]})
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        named = ", ".join(f"{key}: {before.get(key)} there, {now.get(key)} now" for key in differing)
        raise RunError(f"{folder.path}: holds another run ({named}); choose another --out, or delete it")
    for change in changes(there.get("provenance") or {}):
        progress.line(f"warning: {folder.path}: {change}; the bits may differ")
    return config


def record(folder: RunFolder, config: RunConfig, inputs: Mapping[str, str], root: DataRoot) -> None:
    """Write what the run is into its folder, unless it is there already."""
    if folder.config.exists():
        return
    surroundings = {**provenance(), "data_root": root.name, "phantom": root.phantom}
    settings = config.model_dump(mode="json")
    folder.write_config({"format": RUN_FORMAT, **settings, "inputs": dict(inputs), "provenance": surroundings})


def _recorded(there: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that is there, those among them that it had before they could be chosen."""
    return {"train.precision": "fp32", "train.channels_last": False, "train.method": "none", **flatten(there)}


def _for_machine(config: RunConfig, there: Mapping[str, Any] | None) -> RunConfig:
    """What the settings leave to the machine: as the run that is there recorded it, else what is fast here."""
    recorded = _recorded(there) if there else {}
    chosen = {}
    for setting, choice in machine_choices().items():
        given = getattr(config.train, setting)
        before = recorded.get(f"train.{setting}")
        chosen[setting] = next(value for value in (given, before, choice) if value is not None)
    return config.model_copy(update={"train": config.train.model_copy(update=chosen)})
