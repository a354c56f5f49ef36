"""What a run says about itself in config.yaml, and whether a run that is there already is the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from fundus_seg.builtins import CheckpointName
from fundus_seg.config import (
    CHANGE_NOTHING,
    MachineSettings,
    PlannedRun,
    ResolvedRun,
    flatten,
    load_recorded,
    resolve_machine,
)
from fundus_seg.errors import RunError
from fundus_seg.progress import Progress
from fundus_seg.runs.folder import RUN_FORMAT, RunFolder
from fundus_seg.runs.identity import RunIdentity
from fundus_seg.runs.provenance import changes, provenance

_READ_AT_BEGIN = ("inputs.encoder_weights", "inputs.start")
"""Inputs that a run reads when it begins and never again: it goes on without them, and earlier versions recorded the
digests of some of them only."""


def take_up(
    folder: RunFolder,
    config: PlannedRun,
    inputs: Mapping[str, str],
    *,
    probed: bool,
    machine: Callable[[], MachineSettings],
) -> ResolvedRun:
    """The settings to run with in `folder`, nothing left open: for a new run, or for the same run if it is there.

    Args:
        folder: the run's folder, which need not exist; a run that trained nothing yet is a new one.
        config: settings, sources named.
        inputs: digests of what the settings name but do not contain: data, encoder weights.
        probed: whether the holdout is to be probed.
        machine: gives what is fast on this machine; asked for a new run.

    Raises:
        RunError: the folder holds a run of other settings or inputs, whose differing keys are named; or a run that was
            begun with a probe and would go on without it, or the reverse: a probe that missed epochs is no oracle.
        ConfigError: the folder's config.yaml holds other settings than those of a run.
    """
    if not folder.begun:
        return resolve_machine(config, machine())
    there = folder.read_config()
    recorded = recorded_settings(folder)
    resolved = resolve_machine(config, recorded.train)
    before = recorded.training_settings() | flatten({"inputs": there["inputs"]})
    now = resolved.training_settings() | flatten({"inputs": dict(inputs)})
    idle = (
        recorded.training_settings().keys()
        - recorded.effective_settings().keys()
        - resolved.effective_settings().keys()
    )
    differing = sorted(key for key in (before.keys() | now.keys()) - idle if before.get(key) != now.get(key))
    differing = [key for key in differing if key not in _READ_AT_BEGIN or None not in (before.get(key), now.get(key))]
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
    free = [key.removeprefix("train.") for key in CHANGE_NOTHING]
    train = recorded.train.model_copy(update={name: getattr(resolved.train, name) for name in free})
    return recorded.model_copy(update={"scoring": resolved.scoring, "train": train})  # idle settings as they were


def tell_changes(folder: RunFolder, gpu: str | None, progress: Progress) -> None:
    """Warn of what differs from the machine and the versions that an existing run began with.

    Args:
        folder: the run's folder, which need not exist.
        gpu: name of the GPU that computes; None for the processor.
        progress: gets a line for each difference.
    """
    if folder.begun:
        for change in changes(folder.read_config()["provenance"], gpu):
            progress.line(f"warning: {folder.path}: {change}; the bits may differ")


def recorded_settings(folder: RunFolder) -> ResolvedRun:
    """The settings that a run was begun with; a setting that did not exist then has the value that all runs had.

    Raises:
        ConfigError: config.yaml cannot be read, or does not hold the settings of a run.
    """
    return load_recorded(folder.config, ResolvedRun)


def is_probed(content: Mapping[str, Any]) -> bool:
    """Whether the run with this config.yaml had its holdout probed; runs of older versions had not."""
    return bool((content.get("provenance") or {}).get("probed"))


def checkpoints_made(folder: RunFolder) -> list[CheckpointName]:
    """The checkpoints that a run makes to its end, by its settings; whether their files are still there is not asked.

    Raises:
        ConfigError, RunError: its config.yaml is damaged.
    """
    made: list[CheckpointName] = ["best", "last"]
    if recorded_settings(folder).train.average != "none":
        made.append("average")
    if is_probed(folder.read_config()):
        made.append("oracle")
    return made


def refuse_lost(folder: RunFolder, names: Iterable[CheckpointName]) -> None:
    """Refuse a run whose checkpoints of these names, which it has made, are no longer all there.

    Raises:
        RunError: the first that is not.
    """
    for name in names:
        if not folder.checkpoint(name).is_file():
            raise RunError(
                f"{folder.checkpoint(name)}: the run has made it, and it is gone; delete the folder {folder.path}, and "
                "the same `fundus-seg train` command makes all of it again"
            )


def saw_phantom(content: Mapping[str, Any]) -> bool:
    """Whether any photograph of the run with this config.yaml is synthetic: so it was recorded when the run began."""
    return bool((content.get("provenance") or {}).get("phantom"))


def record(
    folder: RunFolder,
    config: ResolvedRun,
    inputs: Mapping[str, str],
    *,
    identity: RunIdentity,
    data_root: str,
    phantom: bool,
    probed: bool,
    gpu: str | None,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write config.yaml into the run's folder, unless it is there and an epoch was trained with it.

    Whether the holdout is probed is no setting, since the run computes the same bits: it is part of the provenance.

    Args:
        folder: the run's folder.
        config: its settings.
        inputs: as in `take_up`.
        identity: which run it is.
        data_root: what opens the data root again.
        phantom: whether any photograph is synthetic.
        probed: whether the holdout is probed.
        gpu: name of the GPU that computes; None for the processor.
        told: what else the provenance says, in plain values: of the photographs, and of the network it starts from.
    """
    if folder.begun:
        return
    surroundings = {**provenance(gpu), "data_root": data_root, "phantom": phantom, "probed": probed, **told}
    settings = config.model_dump(mode="json")
    first = {name: settings.pop(name) for name in ("preset", "holdout", "seed")}
    own = {"identity": asdict(identity), "inputs": dict(inputs), "provenance": surroundings}
    folder.write_config({"format": RUN_FORMAT, **first, **settings, **own})
