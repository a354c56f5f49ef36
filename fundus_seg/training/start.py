"""What a run starts from: the weights of its encoder, or a whole network. Checked before photographs are read."""

from __future__ import annotations

import contextlib

from fundus_seg.config import PlannedRun
from fundus_seg.errors import CheckpointError, RunError
from fundus_seg.models import build_model
from fundus_seg.models.checkpoint import load_network, read_checkpoint
from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.models.encoders import weights_digest
from fundus_seg.runs.origin import start_file

_SETTINGS = {
    "op": "model.op",
    "encoder": "model.encoder",
    "image_size": "data.size",
    "aspp_channels": "model.aspp_channels",
    "expansion": "model.expansion",
    "generator_channels": "model.generator_channels",
    "ablation": "model.ablation",
}
"""The settings that the keys of a checkpoint's `model_spec` come from."""


def check_start(config: PlannedRun, *, begun: bool = False) -> dict[str, str]:
    """Refuse a start that cannot be had, and give the digest of ImageNet weights as an input of the run.

    Args:
        config: settings of the run.
        begun: whether the run has trained already: nothing is refused then, and nothing downloaded, since its own
            checkpoint has the weights. The digest is missing where the weights are not on this machine.

    Raises:
        UsageError: the encoder cannot be used.
        CheckpointError: the weights or the checkpoint are missing or damaged.
        RunError: the checkpoint's network is not the one that the settings name; the differing settings are named.
    """
    weights = config.model.encoder_weights
    if config.model.start != "none":
        if not begun:
            _check_spec(config)
    elif weights == "imagenet" or (weights != "none" and not begun):
        with contextlib.suppress(*([CheckpointError] if begun else [])):
            digest = weights_digest(config.model.encoder, weights, offline=begun)
            return {"encoder_weights": digest} if weights == "imagenet" else {}
    return {}


def starting_network(config: PlannedRun) -> DeepLabV3Plus:
    """The network before its first step; random numbers are drawn from torch's generator.

    Raises:
        CheckpointError: as `check_start`, or the checkpoint needs an operator that the caller has not loaded.
    """
    if config.model.start == "none":
        return build_model(**config.network_spec(), encoder_weights=config.model.encoder_weights)
    network, _ = load_network(start_file(config.model.start))
    return network.train()


def _check_spec(config: PlannedRun) -> None:
    path = start_file(config.model.start)
    spec, wanted = read_checkpoint(path)["model_spec"], config.network_spec()
    whole = {"ablation": "none"}  # which a spec names only where there is one
    there, wanted = {**whole, **(spec if isinstance(spec, dict) else {})}, {**whole, **wanted}
    differing = {key: (there.get(key), value) for key, value in wanted.items() if there.get(key) != value}
    if differing:
        named = ", ".join(f"{_SETTINGS[key]}: {old} there, {new} now" for key, (old, new) in differing.items())
        given = " ".join(f"--set {_SETTINGS[key]}={old}" for key, (old, _) in differing.items())
        raise RunError(f"{path}: holds another network ({named}); take over its settings: {given}")
