"""What a run starts from: the weights of its encoder, or a whole network. Checked before photographs are read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fundus_seg.config import PlannedRun
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.errors import CheckpointError, RunError
from fundus_seg.models import build_model, start_affinity_maps
from fundus_seg.models.checkpoint import load_network, read_checkpoint
from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.models.encoders import weights_digest
from fundus_seg.network_spec import OPTIONAL, NetworkSpec
from fundus_seg.runs.origin import start_file


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


def starting_network(config: PlannedRun, sources: Iterable[ResizedSplit]) -> DeepLabV3Plus:
    """The network before its first step; random numbers are drawn from torch's generator.

    Args:
        config: settings of the run.
        sources: the training splits of its source domains, from which affinity maps start where the settings say so.

    Raises:
        CheckpointError: as `check_start`, or the checkpoint needs an operator that the caller has not loaded.
    """
    if config.model.start == "none":
        network = build_model(**config.network_spec(), encoder_weights=config.model.encoder_weights)
        if "data-affinity" in NetworkSpec(**config.network_spec()).ablated:
            start_affinity_maps(network, *mean_and_sd(sources))
        return network
    network, _ = load_network(start_file(config.model.start))
    return network.train()


def mean_and_sd(splits: Iterable[ResizedSplit]) -> tuple[Tensor, Tensor]:
    """Mean and SD (3, H, W) of the photographs of all splits together, at each place, in [0, 1].

    The sums are of whole numbers: neither the order of the photographs nor the machine changes a bit of them.
    """
    count, total, squares = 0, np.int64(0), np.int64(0)
    for image in itertools.chain.from_iterable(split.images for split in splits):
        values = image.astype(np.int64)
        count, total, squares = count + 1, total + values, squares + values**2
    mean, sd = total / count, np.sqrt(count * squares - total**2) / count
    return torch.from_numpy(mean / 255).permute(2, 0, 1), torch.from_numpy(sd / 255).permute(2, 0, 1)


def _check_spec(config: PlannedRun) -> None:
    path = start_file(config.model.start)
    spec = read_checkpoint(path)["model_spec"]
    there, wanted = ({**OPTIONAL, **each} for each in (spec if isinstance(spec, dict) else {}, config.network_spec()))
    differing = {_setting(key): (there.get(key), value) for key, value in wanted.items() if there.get(key) != value}
    if differing:
        named = ", ".join(f"{setting}: {old} there, {new} now" for setting, (old, new) in differing.items())
        given = " ".join(f"--set {setting}={old}" for setting, (old, _) in differing.items())
        raise RunError(f"{path}: holds another network ({named}); take over its settings: {given}")


def _setting(key: str) -> str:
    """The setting that a value of a `NetworkSpec` comes from."""
    return "data.size" if key == "image_size" else f"model.{key}"
