"""The optimiser of a run: Adam, or AdamW where weights decay."""

from __future__ import annotations

import torch
from torch import nn

from fundus_seg.config.settings import OptimConfig

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
"""Layers whose parameters do not decay, whatever their shape: TVConv's layer norms have one for each position."""


def build_optimizer(network: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """Adam (D. Kingma, J. Ba, ICLR 2015), or AdamW (I. Loshchilov, F. Hutter: Decoupled Weight Decay Regularization,
    ICLR 2019) of two groups, where `optim.weight_decay` is above 0.

    It trains the parameters that require a gradient. The learning rate of each step is to be set from `optim.lr_at`.
    """
    if not optim.weight_decay:
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=optim.lr, betas=optim.betas, fused=True)
    decaying, others = decay_groups(network)
    groups = [{"params": decaying, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def decay_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of a network that are trained and decay, and those that are trained and do not.

    Not to decay are biases and whatever else has a single dimension, the parameters of norms, and those that a module
    names by a method `no_weight_decay()`, as timm's networks name their position embeddings. TVConv so names its
    affinity maps: they start at 1, they say where a position is and not what is done there, and the layer norms behind
    them undo a smaller scale.
    """
    kept: set[int] = set()
    for module in network.modules():
        if isinstance(module, _NORMS):
            kept.update(map(id, module.parameters(recurse=False)))
        if names := set[str](getattr(module, "no_weight_decay", set)()):
            kept.update(id(parameter) for name, parameter in module.named_parameters() if name in names)
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in (each for each in network.parameters() if each.requires_grad):
        groups[parameter.ndim <= 1 or id(parameter) in kept].append(parameter)
    return groups
