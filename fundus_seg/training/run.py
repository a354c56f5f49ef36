"""The folder of a run: where it lies, and whether what is there already is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fundus_seg.config import RunConfig, flatten
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import RunError, UsageError, unknown_name
from fundus_seg.models.checkpoint import network_state
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
    per_domain, devices = config.train.batch_per_domain, config.train.devices
    if per_domain % devices:
        raise UsageError(
            f"train.batch_per_domain {per_domain} with train.devices {devices}: each takes as many cases of every "
            f"domain; choose a multiple of {devices}"
        )
    if devices > 1 and config.train.method != "none":
        raise UsageError(
            f"train.method {config.train.method} with train.devices {devices}: a method sees whole batches; "
            "take one device"
        )
    if len(sources) * per_domain // devices < 2:
        raise UsageError(
            f"train.batch_per_domain {per_domain} with one source: batch norms need two or more cases in a batch "
            "on each device"
        )
    return config.model_copy(update={"data": config.data.model_copy(update={"sources": sources})})


def run_folder(config: RunConfig, root: DataRoot, out: Path) -> RunFolder:
    """Where the run with these resolved settings lies below `out`; the phantom's runs lie apart."""
    base = out / "phantom" if root.phantom else out
    return RunFolder(base / config.preset / config.holdout / operator_name(config, root) / f"seed-{config.seed}")


def operator_name(config: RunConfig, root: DataRoot) -> str:
    """The operator with the slug of what differs from its preset: a folder's name, and a table's column."""
    return config.slug(all_domains=root.experiment)


def take_up(
    folder: RunFolder, config: RunConfig, inputs: Mapping[str, str], *, probed: bool, progress: Progress
) -> RunConfig:
    """The settings to run with in `folder`, the machine's spelt out: a new run's, or of the same run if it is there.

    Args:
        folder: the run's folder, which need not exist.
        config: settings, sources spelt out.
        inputs: digests of what the settings name but do not contain: data, encoder weights.
        probed: whether the holdout is to be probed.
        progress: told what differs from the machine and the versions that the run began on.

    Raises:
        RunError: the folder holds a run of other settings or inputs; the differing keys are named. Or one that was
            begun with a probe and would go on without it, or the reverse: a probe that missed epochs is no oracle.
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
    was_probed = is_probed(there)
    if probed and not was_probed:
        raise RunError(
            f"{folder.path}: begun without --probe-holdout, and a probe that missed epochs is no oracle; "
            "go on without it, choose another --out, or delete the run"
        )
    if was_probed and not probed and not folder.has("TRAINED"):
        raise RunError(f"{folder.path}: begun with --probe-holdout; go on with it, or the probe would miss epochs")
    for change in changes(there.get("provenance") or {}):
        progress.line(f"warning: {folder.path}: {change}; the bits may differ")
    return config


def is_probed(content: Mapping[str, Any]) -> bool:
    """Whether the run with this config.yaml had its holdout probed; those of older versions had not."""
    return bool((content.get("provenance") or {}).get("probed"))


def weights_state(network: nn.Module, config: RunConfig, epoch: int) -> dict[str, Any]:
    """What `best` and `oracle` hold: the weights after `epoch`, and what rebuilds and uses their network."""
    usage = {"image_interpolation": config.data.image_interpolation, "scoring": config.scoring.model_dump(mode="json")}
    return {**network_state(network, usage), "epoch": epoch}


def record(folder: RunFolder, config: RunConfig, inputs: Mapping[str, str], root: DataRoot, *, probed: bool) -> None:
    """Write what the run is into its folder, unless it is there already.

    That its holdout is probed is no setting: the run computes the same bits.
    """
    if folder.config.exists():
        return
    surroundings = {**provenance(), "data_root": root.name, "phantom": root.phantom, "probed": probed}
    settings = config.model_dump(mode="json")
    folder.write_config({"format": RUN_FORMAT, **settings, "inputs": dict(inputs), "provenance": surroundings})


def _recorded(there: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that is there, those among them that it had before they could be chosen."""
    chosen_later = {"train.precision": "fp32", "train.channels_last": False, "train.devices": 1, "train.method": "none"}
    return {**chosen_later, **flatten(there)}


def _for_machine(config: RunConfig, there: Mapping[str, Any] | None) -> RunConfig:
    """What the settings leave to the machine: as the run that is there recorded it, else what is fast here."""
    recorded = _recorded(there) if there else {}
    chosen = {}
    for setting, choice in machine_choices().items():
        given = getattr(config.train, setting)
        before = recorded.get(f"train.{setting}")
        chosen[setting] = next(value for value in (given, before, choice) if value is not None)
    return config.model_copy(update={"train": config.train.model_copy(update=chosen)})
