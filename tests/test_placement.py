"""Where the operator stands: in the ASPP, in the decoder, in the encoder's depthwise slots; and how its maps start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import TINY, TINY_SETTINGS, images, killed_in_epoch, settings, tiny_network, weights
from torch import nn

from fundus_seg import load_model
from fundus_seg.data import open_root
from fundus_seg.data.cache import load_resized
from fundus_seg.errors import CheckpointError, RunError, UsageError
from fundus_seg.models import bake, start_affinity_maps
from fundus_seg.models.checkpoint import load_network, network_state, write_checkpoint
from fundus_seg.ops import TVConv2d
from fundus_seg.ops.compared import Involution2d
from fundus_seg.training import train
from fundus_seg.training.start import check_start, mean_and_sd


def carries(part: nn.Module, kind: type[nn.Module] = TVConv2d) -> int:
    return sum(isinstance(each, kind) for each in part.modules())


class TestPlaces:
    def test_the_aspp_alone_is_the_plain_network_to_the_bit(self) -> None:
        plain = tiny_network()
        named = tiny_network(placement="aspp", generator_layers=3, affinity_channels=4, ablation="none")
        assert named.spec == plain.spec == {"op": "tvconv", **TINY}
        state = named.state_dict()
        assert [*state] == [*plain.state_dict()]
        assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
        assert torch.equal(named.eval()(images(1, 3, 64, 64)), plain.eval()(images(1, 3, 64, 64)))

    def test_defaults_name_no_run(self) -> None:
        spelt_out = settings("model.placement=aspp", "model.generator_layers=3", "model.affinity_channels=4")
        assert spelt_out.recipe(all_domains="ABCD") == ""
        assert spelt_out.network_spec() == settings().network_spec()
        idle = settings("model.generator_layers=1", "model.affinity_channels=1", op="conv")
        assert idle.recipe(all_domains="ABCD") == ""
        assert idle.network_spec() == settings(op="conv").network_spec()

    @pytest.mark.parametrize(
        ("placement", "where"),
        [("decoder", (0, 0, 1)), ("encoder-16", (11, 0, 0)), ("decoder+aspp+encoder-4", (2, 3, 1))],
    )
    def test_the_operator_stands_there_alone(self, placement: str, where: tuple[int, int, int]) -> None:
        network = tiny_network(placement=placement)
        assert tuple(map(carries, (network.encoder, network.aspp, network.decoder))) == where
        assert network.spec["placement"] == "+".join(sorted(placement.split("+")))
        network(images(2, 3, 64, 64)).square().mean().backward()
        assert [name for name, each in network.named_parameters() if each.grad is None] == []

    def test_each_is_made_for_its_map_with_the_same_settings(self) -> None:
        network = tiny_network(placement="aspp+decoder+encoder-8", affinity_channels=2, generator_layers=1)
        layers = [each for each in network.modules() if isinstance(each, TVConv2d)]
        assert {each.size for each in layers} == {(8, 8), (4, 4), (16, 16)}
        assert {(len(each.affinity_maps), len(each.generator)) for each in layers} == {(2, 3)}
        assert {each.stride for each in layers} == {1, 2}

    def test_the_rest_of_the_encoder_keeps_its_weights(self) -> None:
        plain, placed = (tiny_network(placement=place).encoder.state_dict() for place in ("aspp", "encoder-16"))
        kept = plain.keys() & placed.keys()
        assert len(plain) - len(kept) == 11
        assert all(torch.equal(plain[name], placed[name]) for name in kept)

    def test_another_operator_has_places_too(self) -> None:
        network = tiny_network("involution", placement="decoder")
        assert (carries(network.aspp, Involution2d), carries(network.decoder, Involution2d)) == (0, 1)
        depthwise = tiny_network("depthwise", placement="aspp+decoder+encoder-16")
        assert depthwise.encoder.state_dict().keys() == tiny_network("depthwise").encoder.state_dict().keys()
        assert [each.groups for each in depthwise.decoder.fuse if isinstance(each, nn.Conv2d)] == [56, 1]

    @pytest.mark.parametrize("size", [(48, 96), (64, 64)])
    def test_it_bakes_at_every_size(self, size: tuple[int, int]) -> None:
        network, x = tiny_network(placement="aspp+decoder+encoder-16").eval(), images(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(bake(network)(x), network(x), rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"placement": "aspp+neck"}, "unknown part of a placement 'neck'"),
            ({"placement": "none"}, "unknown part of a placement 'none'"),
            ({"placement": "decoder+decoder"}, "names a part twice"),
            ({"ablation": "random-affinity+data-affinity"}, "affinity maps start in one way"),
            ({"op": "conv", "placement": "decoder"}, "with operator conv: it cannot stand for a 3x3 depthwise"),
            ({"op": "mlp-mixer", "placement": "aspp+encoder-16"}, "with operator mlp-mixer: it cannot stand"),
            (
                {"encoder": "resnet18", "placement": "encoder-16"},
                "encoder resnet18 has no 3x3 depthwise convolution at stride 16; take aspp or decoder, or another",
            ),
            (
                {"encoder": "depthwise-shufflenetv2-0.5", "placement": "encoder-4"},
                "at stride 4; take aspp or decoder or encoder-8 or encoder-16, or another encoder",
            ),
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            tiny_network(**{"op": "tvconv", **options})

    def test_a_frozen_encoder_takes_none(self) -> None:
        with pytest.raises(Exception, match=r"model.placement encoder-8 with model.freeze encoder: .* at random"):
            settings("model.placement=encoder-8", "model.freeze=encoder")

    def test_a_checkpoint_that_names_another_is_refused(self, tmp_path: Path) -> None:
        state = network_state(tiny_network(placement="encoder-16"), {})
        write_checkpoint(tmp_path / "bad.ckpt", {**state, "model_spec": {**state["model_spec"], "placement": "aspp"}})
        with pytest.raises(CheckpointError, match=r"bad\.ckpt: its weights do not fit the network it names"):
            load_network(tmp_path / "bad.ckpt")

    def test_a_run_starts_from_no_other_one(self, tmp_path: Path) -> None:
        path = tmp_path / "start.ckpt"
        write_checkpoint(path, network_state(tiny_network(placement="decoder", generator_layers=1), {}))
        told = r"model.generator_layers: 1 there, 3 now, model.placement: decoder there, aspp now"
        with pytest.raises(RunError, match=told):
            check_start(settings(f"model.start={path}", *TINY_SETTINGS))


class TestDataStart:
    def test_mean_and_sd_by_hand(self) -> None:
        """Three photographs of two domains, counted alike."""
        one, two = np.array([[[0, 51, 255]]], np.uint8), np.array([[[255, 51, 0]]], np.uint8)
        splits: Any = [SimpleNamespace(images=np.stack([one, two])), SimpleNamespace(images=two[None])]
        mean, sd = mean_and_sd(splits)
        assert mean.flatten().tolist() == pytest.approx([2 / 3, 0.2, 1 / 3])
        assert sd.flatten().tolist() == pytest.approx([2**0.5 / 3, 0, 2**0.5 / 3])

    def test_maps_are_averaged_over_each_position_and_come_in_turn(self) -> None:
        mean, sd = images(3, 64, 64).double(), images(3, 64, 64).double() + 1
        network = tiny_network(ablation="data-affinity", affinity_channels=7)
        start_affinity_maps(network, mean, sd)
        maps = network.aspp.branches[0][3].affinity_maps
        cell = (slice(16, 32), slice(48, 64))
        for number, whole in enumerate([mean[0], sd[0], mean[1], sd[1], mean[2], sd[2], mean[0]]):
            assert maps[number, 1, 3].item() == pytest.approx(whole[cell].mean().item(), abs=1e-6)
        assert maps.requires_grad

    def test_without_the_word_they_stay_at_1(self) -> None:
        network = tiny_network()
        start_affinity_maps(network, images(3, 64, 64), images(3, 64, 64))
        assert all((each.affinity_maps == 1).all() for each in network.modules() if isinstance(each, TVConv2d))


@pytest.mark.slow
class TestRuns:
    @pytest.mark.parametrize(
        "overrides",
        [
            ["model.ablation=data-affinity"],
            ["model.ablation=spatial-transformer"],
            ["model.ablation=dynamic-bias"],
            ["model.placement=decoder"],
            ["model.placement=aspp+encoder-16", "model.ablation=spatial-transformer+dynamic-bias+no-affines"],
            ["model.generator_layers=1", "model.affinity_channels=2"],
        ],
    )
    def test_a_run_trains_saves_resumes_and_predicts(
        self, draw_root: Any, tmp_path: Path, overrides: list[str]
    ) -> None:
        root = open_root(draw_root())
        whole = train(settings("train.epochs=2", *overrides), root, tmp_path / "whole")
        assert load_model(whole.path)(np.zeros((90, 80, 3), np.uint8)).shape == (2, 90, 80)
        network, _ = load_network(whole.checkpoint("last"))
        assert network.spec == settings(*overrides).network_spec()
        with killed_in_epoch(2):
            train(settings("train.epochs=2", *overrides), root, tmp_path / "again")
        again = train(settings("train.epochs=2", *overrides), root, tmp_path / "again")
        one, other = weights(whole), weights(again)
        assert all(torch.equal(value, other[name]) for name, value in one.items())

    def test_the_holdout_is_in_no_map(self, draw_root: Any, tmp_path: Path) -> None:
        """A run whose weights barely move has the maps of its sources' training photographs."""
        root = open_root(draw_root())
        slow = settings("model.ablation=data-affinity", "optim.lr=1e-12", "train.epochs=1", holdout="D")
        run = train(slow, root, tmp_path / "runs")
        splits = [root.split(domain, "train") for domain in "ABC"]
        mean, _ = mean_and_sd([load_resized(each.cases, slow.data) for each in splits])
        maps = weights(run)["aspp.branches.0.3.affinity_maps"]
        torch.testing.assert_close(maps[0], nn.functional.adaptive_avg_pool2d(mean[:1], 4)[0].float())
