"""A frozen encoder stays as it started, whatever kind it is, and all else is trained as ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import killed_in_epoch, settings, weights
from torch import nn

from fundus_seg import load_model
from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.models import bake, build_model
from fundus_seg.profiling import profile
from fundus_seg.runs.folder import RunFolder
from fundus_seg.training import train

ENCODERS = ["tu-mobilenetv2_035", "tu-test_vit"]
TINY: dict[str, Any] = {"image_size": 64, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


def body(run: RunFolder, name: str = "last") -> dict[str, torch.Tensor]:
    return {key: value for key, value in weights(run, name).items() if key.startswith("encoder.body.")}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_its_body_evaluates_without_gradients_and_the_rest_trains(encoder: str) -> None:
    network = build_model("conv", encoder=encoder, **TINY)
    images = torch.randn(2, 3, 64, 64)
    network.encoder.freeze()
    for mode in (True, False, True):
        network.train(mode)
        assert not any(module.training for module in network.encoder.body.modules())
        assert all(module.training is mode for module in [*network.aspp.modules(), *network.decoder.modules()])
    before = {key: value.clone() for key, value in network.encoder.body.state_dict().items()}
    features = []
    network.encoder.body.register_forward_hook(lambda _, __, output: features.extend(output))
    network(images).square().mean().backward()
    assert not any(each.requires_grad for each in features)
    after = network.encoder.body.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    idle = [key for key, value in network.named_parameters() if value.grad is None]
    assert idle == [f"encoder.body.{key}" for key, _ in network.encoder.body.named_parameters()]


def test_a_network_that_is_not_frozen_is_as_it_was() -> None:
    network = build_model("conv", encoder=ENCODERS[0], **TINY)
    assert all(module.training for module in network.train().modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    network(torch.randn(2, 3, 64, 64))
    assert all(norm.num_batches_tracked == 1 for norm in norms(network))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_run_goes_on_to_the_same_bits_and_its_checkpoint_is_used_like_any(
    encoder: str, draw_root: Callable[..., Path], tmp_path: Path
) -> None:
    root = open_root(draw_root())
    given = [f"model.encoder={encoder}", "model.freeze=encoder", "train.precision=bf16"]
    config = settings(*given, op="conv")
    whole = train(config, root, tmp_path / "whole")
    with killed_in_epoch(2):
        train(config, root, tmp_path / "parts")
    (last,) = (tmp_path / "parts").rglob("last.ckpt")
    groups = torch.load(last, weights_only=True)["optimizer"]["param_groups"]
    parts = train(config, root, tmp_path / "parts")
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(one[key], other[key]) for key in one)
    started = body(train(settings(*given, "train.epochs=1", op="conv"), root, tmp_path / "started"))
    assert started.keys() == body(whole).keys()
    assert all(torch.equal(value, started[key]) for key, value in body(whole).items())
    model = load_model(whole.path)
    all_of, frozen = (len([*each.parameters()]) for each in (model.network, model.network.encoder.body))
    assert sum(len(group["params"]) for group in groups) == all_of - frozen
    photograph = np.full((70, 90, 3), 120, dtype=np.uint8)
    assert model(photograph).shape == (2, 70, 90)
    images = torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(bake(model.network)(images), model.network(images), atol=1e-4, rtol=1e-4)
    assert "freeze=encoder" in evaluate(whole).meta.run.recipe
    assert len(evaluate(whole, inference="native").cases) == 8  # two structures of four cases


def test_the_weights_are_those_that_the_run_was_given(draw_root: Callable[..., Path], tmp_path: Path) -> None:
    """And not new ones, also where it goes on."""
    given = build_model("conv", encoder=ENCODERS[1], **TINY).encoder.body.model.state_dict()
    torch.save({"model": given}, tmp_path / "weights.pth")
    config = settings(
        f"model.encoder={ENCODERS[1]}",
        "model.freeze=encoder",
        f"model.encoder_weights={tmp_path}/weights.pth",
        op="conv",
    )
    root = open_root(draw_root())
    with killed_in_epoch(2):
        train(config, root, tmp_path / "runs")
    kept = body(train(config, root, tmp_path / "runs"))
    assert all(torch.equal(kept[f"encoder.body.model.{key}"], value) for key, value in given.items())


def test_freezing_names_another_recipe_and_the_default_none() -> None:
    plain = load_config("paper", arguments={"holdout": "A"})
    assert plain.recipe(all_domains="ABCD") == ""
    frozen = load_config("paper", overrides=["model.freeze=encoder"], arguments={"holdout": "A"})
    assert frozen.recipe(all_domains="ABCD").startswith("freeze=encoder-")
    assert frozen.network_spec() == plain.network_spec()


def test_the_profile_tells_how_many_parameters_are_trained() -> None:
    spec = {"op": "conv", "encoder": ENCODERS[1], **TINY}
    network = build_model(**spec)
    neck = sum(each.numel() for each in network.encoder.neck.parameters())
    rest = sum(each.numel() for part in (network.aspp, network.decoder) for each in part.parameters())
    for frozen in (False, True):
        row = profile([spec], size=64, repeats=2, frozen=frozen).iloc[0]
        assert row["parameters"] == sum(each.numel() for each in network.parameters())
        assert row["trained_parameters"] == (rest + neck if frozen else row["parameters"])
