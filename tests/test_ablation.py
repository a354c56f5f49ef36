"""What can be taken from TVConv: each part alone, and nothing where nothing is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_runs import TINY, TINY_SETTINGS, images, settings, tiny_network
from torch import nn

from fundus_seg.builtins import ABLATIONS
from fundus_seg.errors import CheckpointError, RunError, UsageError
from fundus_seg.models import bake
from fundus_seg.models.checkpoint import load_network, network_state, write_checkpoint
from fundus_seg.ops import TVConv2d
from fundus_seg.training.start import check_start

SIZE = (6, 5)


def layer(**options: Any) -> TVConv2d:
    torch.manual_seed(0)
    return TVConv2d(3, SIZE, generator_channels=4, generator_layers=1, **options)


class TestOff:
    def test_is_the_plain_operator_to_the_bit(self) -> None:
        """Built by hand from torch's own layers, from the same random numbers."""
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, after in ((4, 4), (4, 4), (4, 27)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.LayerNorm((4, *SIZE)), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-3].weight)  # type: ignore[arg-type]
        plain = nn.Sequential(*layers[:-2])(torch.ones(1, 4, *SIZE)).view(3, 9, *SIZE)
        assert torch.equal(layer().kernel(), plain)
        assert torch.equal(layer(affinity_start="ones", norm_affines=True, padding="zeros").kernel(), plain)

    def test_networks_and_settings_do_not_know_of_it(self) -> None:
        network, plain = tiny_network(ablation="none"), tiny_network()
        assert network.spec == plain.spec == {"op": "tvconv", **TINY}
        assert all(torch.equal(value, plain.state_dict()[name]) for name, value in network.state_dict().items())
        assert "ablation" not in settings(op="tvconv").network_spec()
        assert settings("model.ablation=replicate", op="depthwise").recipe(all_domains="ABCD") == ""
        assert settings("model.ablation=replicate", op="depthwise").network_spec()["op"] == "depthwise"


class TestParts:
    def test_affinity_maps_start_at_random(self) -> None:
        maps = layer(affinity_start="random").affinity_maps
        assert maps.std().item() == pytest.approx(1, abs=0.2)
        assert maps.requires_grad

    def test_norms_lose_what_tells_positions_apart(self) -> None:
        names = {name for name, _ in layer(norm_affines=False).named_parameters()}
        assert names == {"affinity_maps", "generator.0.0.weight", "generator.1.0.weight", "generator.2.weight"}

    def test_zero_padding_alone_tells_positions_apart_at_the_start(self) -> None:
        assert layer().kernel().std(dim=(2, 3)).max() > 0.1
        assert layer(padding="replicate").kernel().std(dim=(2, 3)).max() < 1e-5

    @pytest.mark.slow
    def test_without_position_it_is_a_depthwise_convolution(self) -> None:
        plain, x = layer(norm_affines=False, padding="replicate").double(), images(2, 3, *SIZE).double()
        shared = plain.kernel()[:, :, 0, 0].reshape(3, 1, 3, 3)
        torch.testing.assert_close(plain(x), F.conv2d(x, shared, padding=1, groups=3))
        (plain(x) * images(2, 3, *SIZE)).sum().backward()
        assert plain.affinity_maps.grad is not None

    @pytest.mark.parametrize("ablation", ["branch-12", "branch-6+branch-18"])
    def test_the_other_branches_are_depthwise(self, ablation: str) -> None:
        carried = [isinstance(branch[3], TVConv2d) for branch in tiny_network(ablation=ablation).aspp.branches]
        assert carried == [f"branch-{rate}" in ablation for rate in (6, 12, 18)]
        depthwise = tiny_network("depthwise").aspp.branches[0]
        other = tiny_network(ablation=ablation).aspp.branches[carried.index(False)]
        assert [type(each) for each in other] == [type(each) for each in depthwise]

    @pytest.mark.slow
    @pytest.mark.parametrize("ablation", ["random-affinity+no-affines+replicate", "branch-6"])
    def test_networks_train_bake_save_and_load(self, ablation: str, tmp_path: Path) -> None:
        network, x = tiny_network(ablation=ablation), images(2, 3, 64, 64)
        network(x).square().mean().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []
        assert network.spec == {"op": "tvconv", **TINY, "ablation": ablation}
        write_checkpoint(tmp_path / "model.ckpt", network_state(network, {}))
        loaded, _ = load_network(tmp_path / "model.ckpt")
        with torch.no_grad():
            logits = network.eval()(x)
            assert torch.equal(loaded(x), logits)
            torch.testing.assert_close(bake(loaded)(x), logits, rtol=1e-4, atol=1e-4)


class TestNames:
    def test_parts_have_one_order(self) -> None:
        assert settings("model.ablation=replicate+no-affines").model.ablation == "no-affines+replicate"
        assert settings("model.ablation=replicate").recipe(all_domains="ABCD").startswith("ablation=replicate-")
        for part in ABLATIONS:
            assert settings(f"model.ablation={part}").network_spec()["ablation"] == part

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("replicat", "did you mean 'replicate'"),
            ("replicate+replicate", "names a part twice"),
            ("none+replicate", "unknown part of an ablation 'none'"),
            ("module:part", "unknown part of an ablation 'module:part'"),
        ],
    )
    def test_unknown_ones_are_refused(self, name: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            tiny_network(ablation=name)
        with pytest.raises(Exception, match=message):
            settings(f"model.ablation={name}")

    def test_another_operator_has_none(self) -> None:
        with pytest.raises(UsageError, match="ablation replicate with operator conv: it changes something of tvconv"):
            tiny_network("conv", ablation="replicate")

    @pytest.mark.parametrize(
        ("value", "message"), [("elsewhere", "elsewhere"), (3, "ablation 3, which no network has")]
    )
    def test_a_checkpoint_that_names_another_is_refused(self, value: object, message: str, tmp_path: Path) -> None:
        state = network_state(tiny_network(), {})
        write_checkpoint(tmp_path / "bad.ckpt", {**state, "model_spec": {**state["model_spec"], "ablation": value}})
        with pytest.raises(CheckpointError, match=message):
            load_network(tmp_path / "bad.ckpt")

    def test_a_run_starts_from_no_other_one(self, tmp_path: Path) -> None:
        path = tmp_path / "start.ckpt"
        write_checkpoint(path, network_state(tiny_network(ablation="replicate"), {}))
        plain = settings(f"model.start={path}", *TINY_SETTINGS)
        with pytest.raises(
            RunError, match=r"model.ablation: replicate there, none now.*--set model.ablation=replicate"
        ):
            check_start(plain)
        check_start(settings(f"model.start={path}", "model.ablation=replicate", *TINY_SETTINGS))
