"""What a run says about itself in config.yaml, and whether a run that is there already is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fundus_seg.config import RunConfig, flatten
from fundus_seg.config.resolve import resolve_machine
from fundus_seg.errors import RunError
from fundus_seg.progress import Progress
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import RunIdentity
from fundus_seg.runs.provenance import changes, provenance

RUN_FORMAT = 1


def take_up(
    folder: RunFolder,
    config: RunConfig,
    inputs: Mapping[str, str],
    *,
    probed: bool,
    machine: Mapping[str, Any],
    gpu: str | None,
    progress: Progress,
) -> RunConfig:
    """The settings to run with in `folder`, the machine's spelt out: a new run's, or of the same run if it is there.

    Args:
        folder: the run's folder, which need not exist.
        config: settings, sources spelt out.
        inputs: digests of what the settings name but do not contain: data, encoder weights.
        probed: whether the holdout is to be probed.
        machine: what is fast here, by setting of `train`.
        gpu: name of the GPU that computes; None for the processor.
        progress: told what differs from the machine and the versions that the run began on.

    Raises:
        RunError: the folder holds a run of other settings or inputs; the differing keys are named. Or one that was
            begun with a probe and would go on without it, or the reverse: a probe that missed epochs is no oracle.
    """
    there = folder.read_config() if folder.config.exists() else None
    config = resolve_machine(config, _recorded(there) if there else {}, machine)
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
    for change in changes(there.get("provenance") or {}, gpu):
        progress.line(f"warning: {folder.path}: {change}; the bits may differ")
    return config


def is_probed(content: Mapping[str, Any]) -> bool:
    """Whether the run with this config.yaml had its holdout probed; those of older versions had not."""
    return bool((content.get("provenance") or {}).get("probed"))


def record(
    folder: RunFolder,
    config: RunConfig,
    inputs: Mapping[str, str],
    *,
    identity: RunIdentity,
    data_root: str,
    phantom: bool,
    probed: bool,
    gpu: str | None,
) -> None:
    """Write what the run is into its folder, unless it is there already.

    That its holdout is probed is no setting: the run computes the same bits.
    """
    if folder.config.exists():
        return
    surroundings = {**provenance(gpu), "data_root": data_root, "phantom": phantom, "probed": probed}
    settings = config.model_dump(mode="json")
    own = {"identity": asdict(identity), "inputs": dict(inputs), "provenance": surroundings}
    folder.write_config({"format": RUN_FORMAT, **settings, **own})


def _recorded(there: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that is there, those among them that it had before they could be chosen."""
    chosen_later = {"train.precision": "fp32", "train.channels_last": False, "train.devices": 1, "train.method": "none"}
    return {**chosen_later, **flatten(there)}
