"""Weight decay, and the course of the learning rate in a run."""

from __future__ import annotations

import pytest
import torch
from small_runs import killed_in_epoch, metrics, settings, weights
from torch import nn

from fundus_seg.config import OptimConfig
from fundus_seg.data.layout import open_root
from fundus_seg.models import build_model
from fundus_seg.training import train
from fundus_seg.training.optimiser import build_optimizer, decay_groups


def test_weights_decay_but_norms_biases_and_affinity_maps_do_not():
    network = build_model("tvconv", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=8, expansion=1)
    decaying, others = decay_groups(network)
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    assert len(decaying) + len(others) == len(name_of)
    convolutions = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert {name_of[id(parameter)] for parameter in decaying} == {f"{name}.weight" for name in convolutions}
    names = [name_of[id(parameter)] for parameter in others]
    assert sum(name.endswith("affinity_maps") for name in names) == 3
    assert "aspp.branches.0.3.generator.0.1.weight" in names  # a layer norm's, of three dimensions
    assert "decoder.classify.bias" in names


def test_an_untied_kernel_decays_and_what_a_module_names_does_not():
    network = build_model("untied", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=8, expansion=1)
    assert any(parameter is network.aspp.branches[0][3].weight for parameter in decay_groups(network)[0])

    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Parameter(torch.ones(2, 3))
            self.mixing = nn.Parameter(torch.ones(2, 3))

        def no_weight_decay(self):
            return {"embedding", "cls_token"}

    positions = Positions()
    decaying, others = decay_groups(positions)
    assert decaying[0] is positions.mixing and others[0] is positions.embedding
    assert (len(decaying), len(others)) == (1, 1)


def test_decay_is_decoupled_from_the_gradient():
    """Adam's first step is lr times the sign of the gradient; a weight w loses lr times 0.5 w besides, a bias not."""
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, 4.0)
    nn.init.constant_(layer.bias, 4.0)
    optimizer = build_optimizer(layer, OptimConfig(lr=0.1, weight_decay=0.5))
    layer(torch.tensor([[1.0, -1.0]])).sum().backward()
    optimizer.step()
    assert layer.weight.flatten().tolist() == pytest.approx([4 - 0.2 - 0.1, 4 - 0.2 + 0.1])
    assert layer.bias.item() == pytest.approx(4 - 0.1)
    layer.bias.requires_grad_(False)
    (group,) = build_optimizer(layer, OptimConfig()).param_groups
    assert len(group["params"]) == 1 and [*map(len, decay_groups(layer))] == [1, 0]
    assert type(optimizer) is torch.optim.AdamW
    assert type(build_optimizer(layer, OptimConfig())) is torch.optim.Adam


def test_a_run_with_all_of_it_goes_on_to_the_same_bits(draw_root, tmp_path):
    root = open_root(draw_root())
    overrides = ["optim.schedule=cosine", "optim.warmup=1.5", "optim.weight_decay=0.05", "train.loss=bce-dice"]
    config = settings("train.epochs=3", *overrides)
    whole = train(config, root, tmp_path / "whole")
    with killed_in_epoch(2):
        train(config, root, tmp_path / "parts")
    parts = train(config, root, tmp_path / "parts")
    assert metrics(parts) == metrics(whole)
    assert all(torch.equal(*pair) for pair in zip(weights(parts).values(), weights(whole).values(), strict=True))
    # Of the last of each epoch's two steps, of six: 2/3, 1, 1 of 1e-3 times half of 1 + cos(pi step / 6).
    halves = [(1 + 3**0.5 / 2) / 2, 1 / 2, (1 - 3**0.5 / 2) / 2]
    expected = [1e-3 * share * half for share, half in zip((2 / 3, 1, 1), halves, strict=True)]
    assert [float(row["lr"]) for row in metrics(whole)] == pytest.approx(expected)
