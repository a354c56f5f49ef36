"""A checkpoint is data: what it says is checked, what was changed in it is seen, and it keeps its bytes."""

from __future__ import annotations

import copy
import functools
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import settings
from torch import nn

from fundus_seg import plugins
from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError
from fundus_seg.models import build_model, encoders
from fundus_seg.models.checkpoint import load_network, network_state, read_checkpoint, write_checkpoint
from fundus_seg.models.deeplab import assemble
from fundus_seg.training import fit, train

USAGE = {"image_interpolation": "lanczos", "scoring": {}}
TINY: dict[str, Any] = {
    "encoder": "mobilenet_v2",
    "image_size": 64,
    "aspp_channels": 8,
    "expansion": 1,
    "generator_channels": 4,
}


@functools.cache
def _network() -> Any:
    return build_model("tvconv", **TINY)


@pytest.fixture
def state() -> dict[str, Any]:
    """The content of a checkpoint."""
    return copy.deepcopy(network_state(_network(), USAGE))


class TestSpec:
    """The part that rebuilds a network steers nothing else."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"encoder": "tu-hf_hub:somebody/network"}, "a place to fetch it from"),
            ({"encoder": "tu-local-dir:/etc"}, "a place to fetch it from"),
            ({"encoder": "tu-somebody/network"}, "a place to fetch it from"),
            ({"encoder": "no_encoder"}, "unknown encoder 'no_encoder'"),
            ({"encoder": "tu-no_encoder"}, "does not fit DeepLabV3"),
            ({"encoder": ["mobilenet_v2"]}, "has the encoder"),
            ({"encoder_weights": "imagenet"}, "not one that fundus-seg writes"),
            ({"kernel_cache_bytes": 2**60}, "not one that fundus-seg writes"),
            ({"op": "tvcnov"}, "unknown operator 'tvcnov'"),
            ({"op": None}, "has the op None"),
            ({"aspp_channels": 10**7}, "has the aspp_channels 10000000"),
            ({"expansion": 10**100}, "has the expansion 1000"),
            ({"image_size": 2**20}, "has the image_size"),
            ({"image_size": -16}, "has the image_size -16"),
            ({"image_size": True}, "has the image_size True"),
            ({"image_size": 64.0}, r"has the image_size 64\.0"),
            ({"expansion": 4096}, "in the network, .* in the file"),
            ({"generator_channels": 4096}, "in the network, .* in the file"),
            ({"image_size": 4096}, "in the network, .* in the file"),
            ({"image_size": 65}, "not a multiple of 16"),
            ({"encoder": "tu-convnextv2_huge"}, "in the network, .* in the file"),
        ],
    )
    def test_what_we_do_not_write_is_one_line(
        self, state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, reason: str
    ) -> None:
        write_checkpoint(tmp_path / "bad.ckpt", {**state, "model_spec": {**state["model_spec"], **change}})

        def without_memory(*arguments: Any, **spec: Any) -> Any:
            if torch.get_default_device().type != "meta":
                pytest.fail("a network with memory was built")
            return assemble(*arguments, **spec)

        monkeypatch.setattr("fundus_seg.models.checkpoint.assemble", without_memory)
        with pytest.raises(CheckpointError, match=reason) as caught:
            load_network(tmp_path / "bad.ckpt")
        assert str(caught.value).startswith(f"{tmp_path}/bad.ckpt: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("spec", [None, [], {}, {"op": "conv"}, "conv"])
    def test_no_spec(self, state: dict[str, Any], tmp_path: Path, spec: Any) -> None:
        write_checkpoint(tmp_path / "bad.ckpt", {**state, "model_spec": spec})
        with pytest.raises(CheckpointError, match="model_spec is not one that fundus-seg writes"):
            load_network(tmp_path / "bad.ckpt")

    @pytest.mark.parametrize("op", ["conv", "tvconv"])
    def test_an_encoder_that_is_built_with_numbers_is_loaded(self, tmp_path: Path, op: str) -> None:
        network = build_model(op, **TINY | {"encoder": "mit_b0"}).eval()
        write_checkpoint(tmp_path / "last.ckpt", network_state(network, USAGE))
        loaded, _ = load_network(tmp_path / "last.ckpt")
        assert loaded.state_dict().keys() == network.state_dict().keys()
        with pytest.raises(encoders.UsageError), torch.device("meta"):
            build_model(op, **TINY | {"encoder": "mit_b0"})

    def test_an_operator_of_one_s_own_that_needs_numbers_is_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(plugins._loaded, "own.idea:block", plugins.Plugin(_counts, "0" * 16))
        network = build_model("own.idea:block", **TINY)
        write_checkpoint(tmp_path / "last.ckpt", network_state(network, USAGE))
        loaded, _ = load_network(tmp_path / "last.ckpt")
        assert loaded.state_dict().keys() == network.state_dict().keys()


def _counts(in_channels: int, out_channels: int, rate: int, settings: Any) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, int(torch.ones(1).sum().item()))


class TestDamage:
    """A checkpoint that is not what was written is refused."""

    def test_one_flipped_bit(self, state: dict[str, Any], tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "whole.ckpt", state)
        whole = (tmp_path / "whole.ckpt").read_bytes()
        draw = random.Random(0)
        seen = 0
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            (tmp_path / "bad.ckpt").write_bytes(damaged)
            try:
                content = read_checkpoint(tmp_path / "bad.ckpt")
            except CheckpointError as error:
                seen += 1
                assert "\n" not in str(error)
            else:  # a bit between the parts, which no reader looks at
                assert all(torch.equal(content["model"][name], value) for name, value in state["model"].items())
        assert seen > 30

    @pytest.mark.parametrize("part", ["data.pkl", "data/0"])
    def test_a_flipped_bit_in_every_kind_of_part(self, state: dict[str, Any], tmp_path: Path, part: str) -> None:
        write_checkpoint(tmp_path / "bad.ckpt", state)
        content = (tmp_path / "bad.ckpt").read_bytes()
        with zipfile.ZipFile(tmp_path / "bad.ckpt") as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(part))
            inside = archive.read(name)
        begin = content.index(inside[:64] if len(inside) >= 64 else inside)
        damaged = bytearray(content)
        damaged[begin] ^= 1
        (tmp_path / "bad.ckpt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            load_network(tmp_path / "bad.ckpt")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_no_numbers(self, state: dict[str, Any], tmp_path: Path, value: float) -> None:
        state["model"]["decoder.classify.bias"][0] = value
        write_checkpoint(tmp_path / "bad.ckpt", state)
        with pytest.raises(CheckpointError, match=r"no finite numbers \(the first such tensor is decoder\.classify"):
            load_network(tmp_path / "bad.ckpt")

    @pytest.mark.parametrize("model", [None, {"a": 1}, [torch.zeros(1)]])
    def test_no_weights(self, state: dict[str, Any], tmp_path: Path, model: Any) -> None:
        write_checkpoint(tmp_path / "bad.ckpt", {**state, "model": model})
        with pytest.raises(CheckpointError, match="its weights are no tensors"):
            load_network(tmp_path / "bad.ckpt")

    def test_a_few_bytes_that_unpack_to_many_are_refused_unread(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "bad.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(2**26))
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(tmp_path / "bad.ckpt")

    def test_a_checkpoint_that_torch_wrote_itself_is_read(self, state: dict[str, Any], tmp_path: Path) -> None:
        """Earlier versions wrote so."""
        with (tmp_path / "old.ckpt").open("wb") as file:
            torch.save(state, file)
        assert load_network(tmp_path / "old.ckpt")[1] == USAGE


class TestBytes:
    """Equal states give equal bytes."""

    def test_of_a_state_that_was_read(
        self, draw_root: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fit, "write_checkpoint", _keep_each)
        run = train(settings("train.epochs=3"), open_root(draw_root()), tmp_path)
        written = sorted(run.checkpoint("last").parent.glob("last-*.ckpt"))
        assert len(written) == 3
        for path in written:
            write_checkpoint(tmp_path / "again.ckpt", read_checkpoint(path))
            assert (tmp_path / "again.ckpt").read_bytes() == path.read_bytes()


def _keep_each(path: Path, state: dict[str, Any]) -> None:
    write_checkpoint(path, state)
    write_checkpoint(path.with_name(f"{path.stem}-{state['epoch']}.ckpt"), state)
