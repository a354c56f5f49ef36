from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fundus_seg.errors import CheckpointError, UsageError
from fundus_seg.models import encoders
from fundus_seg.models.encoders import build_encoder, smp_encoders

SMALL = "tu-mobilenetv2_035"


def torchvision_state() -> dict[str, Tensor]:
    """What torchvision publishes for MobileNetV2: the 1280-channel convolution and the classifier are in it."""
    torch.manual_seed(3)
    state = dict(smp_encoders.get_encoder("mobilenet_v2", weights=None).state_dict())
    assert state["features.18.0.weight"].shape == (1280, 320, 1, 1)
    return state | {"classifier.1.weight": torch.zeros(1000, 1280), "classifier.1.bias": torch.zeros(1000)}


class TestFeatures:
    @pytest.mark.parametrize(
        ("name", "low_channels", "deep_channels"), [("mobilenet_v2", 24, 320), ("resnet34", 64, 512), (SMALL, 8, 112)]
    )
    def test_channels_and_strides(self, name: str, low_channels: int, deep_channels: int) -> None:
        encoder = build_encoder(name).eval()
        with torch.no_grad():
            low, deep = encoder(torch.zeros(1, 3, 96, 64))
        assert low.shape == (1, low_channels, 24, 16)
        assert deep.shape == (1, deep_channels, 6, 4)
        assert (encoder.low_channels, encoder.deep_channels) == (low_channels, deep_channels)

    def test_a_new_encoder_is_in_training_mode_with_untouched_statistics(self) -> None:
        encoder = build_encoder("mobilenet_v2", "none")
        assert all(module.training for module in encoder.modules())
        counts = [value for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked")]
        assert counts
        assert not any(counts)


class TestWeightsFromAFile:
    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
    def test_every_format(self, tmp_path: Path, suffix: str) -> None:
        state, path = torchvision_state(), tmp_path / f"weights{suffix}"
        old_style = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save(old_style, path)
        for given in (path, str(path)):
            body = build_encoder("mobilenet_v2", given).body
            loaded = body.state_dict()
            assert all(torch.equal(loaded[key], state[key]) for key in loaded)
            assert "features.17.conv.2.weight" in loaded
            assert "features.18.0.weight" not in loaded

    @pytest.mark.parametrize("name", ["resnet34", SMALL])
    def test_of_other_encoders(self, tmp_path: Path, name: str) -> None:
        state = build_encoder(name).body.state_dict()
        torch.save(state, tmp_path / "weights.pt")
        loaded = build_encoder(name, tmp_path / "weights.pt").body.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)

    def test_a_file_of_another_network_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        state = torchvision_state()
        state["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
        del state["features.17.conv.2.weight"]
        torch.save(state, path)
        fit = r"other\.pth: 253 of the 255 tensors of encoder 'mobilenet_v2' fit; .* is 'features\.0\.0\.weight'"
        with pytest.raises(CheckpointError, match=fit):
            build_encoder("mobilenet_v2", path)

    def test_files_that_are_no_state_dict_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            CheckpointError, match=r"encoder_weights=imagnet: no such file \(nor is it 'imagenet' or 'none'\)"
        ):
            build_encoder(SMALL, "imagnet")
        for name in ("text.pth", "text.safetensors"):
            (tmp_path / name).write_text("not a tensor in sight")
        torch.save([torch.zeros(1)], tmp_path / "list.pth")
        torch.save(torch.nn.Identity(), tmp_path / "code.pth")
        for path in tmp_path.iterdir():
            with pytest.raises(
                CheckpointError, match=rf"{re.escape(path.name)}: cannot be read as a state dict (?!.*weights_only)"
            ):
                build_encoder(SMALL, path)


class TestImageNetWeights:
    @pytest.mark.parametrize("name", ["mobilenet_v2", "resnet34", "tu-resnet10t", "tu-test_vit"])
    def test_without_a_network(self, unplugged: Path, name: str) -> None:
        with pytest.raises(CheckpointError, match="cannot be reached, and nothing is cached") as caught:
            build_encoder(name, "imagenet")
        message = str(caught.value)
        assert "\n" not in message
        assert f"'{name}'" in message
        assert "encoder_weights=none" in message
        assert "encoder_weights=PATH" in message
        assert not encoders.hub.HF_HUB_OFFLINE, "only for as long as the weights are being looked for"

    def test_from_the_cache_without_a_network(self, unplugged: Path) -> None:
        state = {key: value for key, value in torchvision_state().items() if not key.startswith("classifier")}
        source = smp_encoders.encoders["mobilenet_v2"]["pretrained_settings"]["imagenet"]
        snapshot = unplugged / f"models--{source['repo_id'].replace('/', '--')}" / "snapshots" / source["revision"]
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({}))
        save_file(state, snapshot / "model.safetensors")
        loaded = build_encoder("mobilenet_v2", "imagenet").body.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in loaded)

    def test_of_an_encoder_that_has_none(self, unplugged: Path) -> None:
        with pytest.raises(
            CheckpointError, match=r"No pretrained weights exist for mobilenetv2_035.*encoder_weights=none"
        ):
            build_encoder(SMALL, "imagenet")


class TestRefusals:
    def test_encoders_that_cannot_be_used(self) -> None:
        with pytest.raises(UsageError, match=r"unknown encoder 'mobilnet_v2': did you mean 'mobilenet_v2'\?"):
            build_encoder("mobilnet_v2")
        with pytest.raises(UsageError, match=r"unknown encoder 'vit_tiny_patch16_224': did you mean 'tu-vit_tiny"):
            build_encoder("vit_tiny_patch16_224")
        with pytest.raises(UsageError, match=r"'tu-nothing' does not fit DeepLabV3\+: Unknown model"):
            build_encoder("tu-nothing")
        with pytest.raises(UsageError, match=r"'vgg11' does not fit DeepLabV3\+: .*do not support dilated mode"):
            build_encoder("vgg11")
