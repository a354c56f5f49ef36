"""Measure how much the kernels of a network's operators differ between positions, and by what (`runs.kernels`)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fundus_seg.errors import UsageError
from fundus_seg.models.aspp import RATES
from fundus_seg.ops import BakedTVConv2d, TranslationVariantConv2d
from fundus_seg.runs.kernels import Floats, LayerKernels, Parts, subsets

_BRANCHES = tuple(f"aspp.branches.{number}." for number in range(len(RATES)))


def measure_layers(network: nn.Module) -> tuple[LayerKernels, ...]:
    """Measure each operator of a network that has a kernel for each position; the network does not change.

    Args:
        network: of `build_model`, wrapped by Fabric or not, in whatever mode and on whatever device.

    Returns:
        One `LayerKernels` for each operator, in the order of the network; none where no operator knows positions.

    Raises:
        UsageError: the network is baked: its generators are gone.
    """
    modules = getattr(network, "module", network).named_modules()  # Fabric keeps the network in this attribute
    return tuple(
        measure_operator(module, _place(name))
        for name, module in modules
        if isinstance(module, TranslationVariantConv2d)
    )


@torch.no_grad()
def measure_operator(operator: TranslationVariantConv2d, name: str = "") -> LayerKernels:
    """Measure one operator, which does not change.

    Args:
        operator: a `TVConv2d`, `LinearTVConv2d`, `UntiedConv2d` or one of your own.
        name: of its place in a network.

    Raises:
        UsageError: it is baked: its generator is gone.
    """
    if isinstance(operator, BakedTVConv2d):
        raise UsageError(
            "a baked operator has constant kernels and no affinity maps; measure the network before `bake`"
        )
    parts = _parts(operator)
    affinity = getattr(operator, "affinity_maps", None)
    affines = [
        torch.stack([_departure(norm.weight), _departure(norm.bias)])
        for norm in operator.modules()
        if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine
    ]
    return LayerKernels(
        name,
        parts,
        {kept: _deviation(kernel_keeping(operator, kept)) for kept in subsets(parts)},
        affinity=None if affinity is None else _array(affinity),
        affines=_array(torch.stack(affines, dim=1)) if affines else None,
    )


@torch.no_grad()
def kernel_keeping(operator: TranslationVariantConv2d, kept: Parts) -> Tensor:
    """W (C, k·k, h, w) if only some parts keep their position; the operator does not change.

    Args:
        operator: as in `measure_operator`.
        kept: of `runs.kernels.PARTS`. Without `affinity`, each affinity map is at its mean over positions; without
            `affines`, so is each channel's scale and shift of each layer norm; without `padding`, the generator's
            convolutions pad by the nearest value.
    """
    changed: Any = copy.deepcopy(operator).eval()
    if "affinity" not in kept and hasattr(changed, "affinity_maps"):
        _level(changed.affinity_maps)
    for module in changed.modules():
        if isinstance(module, nn.LayerNorm) and module.elementwise_affine and "affines" not in kept:
            _level(module.weight)
            _level(module.bias)
        elif isinstance(module, nn.Conv2d) and "padding" not in kept:
            module.padding_mode = "replicate"
    kernel: Tensor = changed.kernel()
    return kernel


def _parts(operator: TranslationVariantConv2d) -> Parts:
    """The ways by which position enters an operator's kernels, in the order of PARTS."""
    modules = list(operator.modules())
    there = {
        "affinity": hasattr(operator, "affinity_maps"),
        "affines": any(isinstance(each, nn.LayerNorm) and each.elementwise_affine for each in modules),
        "padding": any(isinstance(each, nn.Conv2d) and each.padding_mode == "zeros" for each in modules),
    }
    return tuple(part for part, is_there in there.items() if is_there)


def _level(parameter: nn.Parameter) -> None:
    """Set a parameter (..., h, w) to its mean over positions."""
    parameter.copy_(parameter.mean((-2, -1), keepdim=True).expand_as(parameter))


def _departure(affine: Tensor) -> Tensor:
    """The rms over channels (h, w) of what an affine (C, h, w) differs from its mean over positions."""
    return (affine - affine.mean((-2, -1), keepdim=True)).square().mean(0).sqrt()


def _deviation(kernel: Tensor) -> Floats:
    """The deviation d (h, w) of kernels (C, k·k, h, w)."""
    exact = kernel.double()
    rms = exact.square().mean().sqrt()
    own = (exact - exact.mean((-2, -1), keepdim=True)).square().mean((0, 1)).sqrt()
    return _array(own / rms if rms > 0 else own)


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _place(name: str) -> str:
    """`branch 6` for what lies in this branch of the ASPP, and the path of the module for all else."""
    branch = next((rate for start, rate in zip(_BRANCHES, RATES, strict=True) if name.startswith(start)), None)
    return name if branch is None else f"branch {branch}"
