"""Transformers as encoders, by tiny ones with random weights: those that timm has for tests, and two made here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fundus_seg.errors import CheckpointError
from fundus_seg.models import build_model
from fundus_seg.models.checkpoint import load_network, network_state, write_checkpoint
from fundus_seg.models.encoders import build_encoder, encoder_shapes
from fundus_seg.models.vit import Transformer, is_transformer, timm

PLAIN = "tu-test_vit"
"""Patches of 16 pixels, 224 pixels, a class token, mean and deviation 0.5."""
DINO2 = "tu-vit_tiny_test_dinov2"
DINO3 = "tu-vit_tiny_test_dinov3"
TINY: dict[str, Any] = {"image_size": 64, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}


def _tiny(factory: Callable[..., nn.Module], **options: Any) -> Callable[..., nn.Module]:
    def make(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **given: Any
    ) -> Any:
        given.pop("cache_dir", None)
        model = factory(embed_dim=48, depth=4, num_heads=3, **options, **given)
        model.pretrained_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
        return model

    return make


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    """DINOv2's form: patches of 14 pixels, a class token, registers that have no position; and DINOv3's."""
    dino2 = {"patch_size": 14, "img_size": 518, "init_values": 1.0, "reg_tokens": 4, "no_embed_class": True}
    dino3 = {
        "patch_size": 16, "img_size": 256, "init_values": 1.0, "num_reg_tokens": 4, "use_abs_pos_emb": False,
        "use_rot_pos_emb": True, "rope_type": "dinov3", "qkv_bias": False, "rope_rotate_half": True,
        "use_fc_norm": False,
    }  # fmt: skip
    for name, factory, options, module in (
        (DINO2, timm.models.VisionTransformer, dino2, "timm.models.vision_transformer"),
        (DINO3, timm.models.Eva, dino3, "timm.models.eva"),
    ):
        make = _tiny(factory, **options)
        make.__name__, make.__module__ = name.removeprefix("tu-"), module
        make.__annotations__["return"] = factory
        timm.models.register_model(make)


def images(*size: int) -> Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def random_state(encoder: str, image_size: int = 224) -> dict[str, Tensor]:
    """The tensors of a transformer of timm, all of them random."""
    torch.manual_seed(1)
    state = build_encoder(encoder, image_size=image_size).body.model.state_dict()
    return {key: torch.randn_like(value) for key, value in state.items()}


class TestWhichEncodersTheyAre:
    @pytest.mark.parametrize(
        "name",
        ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3",
         "vit_large_patch16_224", "vit_large_patch16_224.mae", "deit3_small_patch16_224", "eva02_tiny_patch14_224"],
    )  # fmt: skip
    def test_these_are(self, name: str) -> None:
        assert is_transformer(f"tu-{name}")
        assert not is_transformer(name)

    @pytest.mark.parametrize("name", ["mobilenet_v2", "tu-resnet18", "tu-swin_tiny_patch4_window7_224", "tu-nothing"])
    def test_these_are_not(self, name: str) -> None:
        assert not is_transformer(name)


class TestMaps:
    @pytest.mark.parametrize("name", [PLAIN, "tu-test_vit3", DINO2, DINO3])
    @pytest.mark.parametrize("size", [(64, 64), (96, 48), (224, 240)])
    def test_strides_at_any_size(self, name: str, size: tuple[int, int]) -> None:
        encoder = build_encoder(name, image_size=64).eval()
        with torch.no_grad():
            low, deep = encoder(images(*size))
        height, width = size
        assert deep.shape == (2, encoder.body.channels, height // 16, width // 16)
        assert low.shape == (2, encoder.body.channels // 8, height // 4, width // 4)
        assert (encoder.low_channels, encoder.deep_channels) == (low.shape[1], deep.shape[1])

    @pytest.mark.parametrize("name", [PLAIN, DINO2, DINO3])
    def test_they_are_the_tokens_of_timm_at_the_size_that_it_was_trained_for(self, name: str) -> None:
        """Class and register tokens are no part of them, positions are as they were learned."""
        theirs = timm.create_model(name.removeprefix("tu-"), num_classes=0).eval()
        patch, side = theirs.patch_embed.patch_size[0], theirs.patch_embed.img_size[0]
        size = side // patch * 16
        body = build_encoder(name, image_size=size).eval().body
        body.load(theirs.state_dict())
        given = images(size, size)
        seen = F.interpolate(given, size=side, mode="bilinear", antialias=True) if patch != 16 else given
        mean, std = (torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            tokens = theirs.forward_features(((seen + 1) / 2 - mean) / std)[:, theirs.num_prefix_tokens :]
            early, last = body(given)
        torch.testing.assert_close(last.flatten(2), tokens.transpose(1, 2))
        assert not torch.allclose(early, last)

    def test_positions_are_interpolated_once_for_the_training_size(self) -> None:
        state = random_state(PLAIN)
        body = build_encoder(PLAIN, image_size=96).body
        body.load(state)
        assert torch.equal(
            body.model.pos_embed, timm.layers.resample_abs_pos_embed(state["pos_embed"], [6, 6], [14, 14])
        )
        assert body.model.patch_embed.grid_size == (6, 6)

    def test_where_positions_do_not_differ_no_size_changes_the_tokens(self) -> None:
        state = random_state(PLAIN)
        state["pos_embed"][:] = state["pos_embed"][:, :1]
        body = build_encoder(PLAIN, image_size=64).eval().body
        body.load(state)
        with torch.no_grad():
            maps = [body(torch.full((1, 3, *size), 0.3))[1] for size in ((64, 64), (96, 32))]
        for each in maps:
            torch.testing.assert_close(each, maps[0][..., :1, :1].expand_as(each), atol=1e-3, rtol=1e-3)

    def test_everything_learns_and_a_checkpoint_has_all_of_it(self, tmp_path: Path) -> None:
        for name in (DINO2, DINO3):
            network = build_model("conv", encoder=name, **TINY)
            network(images(64, 64)).square().mean().backward()
            assert [key for key, value in network.named_parameters() if value.grad is None] == []
            shapes = {f"encoder.{key}": shape for key, shape in encoder_shapes(name, image_size=64).items()}
            state = {key: tuple(value.shape) for key, value in network.state_dict().items()}
            assert shapes.items() <= state.items()
            write_checkpoint(tmp_path / "last.ckpt", network_state(network, {}))
            loaded, _ = load_network(tmp_path / "last.ckpt")
            with torch.no_grad():
                assert torch.equal(loaded(images(96, 64)), network.eval()(images(96, 64)))

    def test_a_checkpoint_that_names_a_larger_one_is_refused_before_it_takes_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = network_state(build_model("conv", encoder=PLAIN, **TINY), {})
        state["model_spec"]["encoder"] = "tu-vit_7b_patch16_dinov3"
        write_checkpoint(tmp_path / "bad.ckpt", state)
        monkeypatch.setattr("fundus_seg.models.checkpoint.build_encoder", lambda *_, **__: pytest.fail("built"))
        with pytest.raises(CheckpointError, match=r"in the network, .* in the file"):
            load_network(tmp_path / "bad.ckpt")


def retfound(state: dict[str, Tensor]) -> dict[str, Any]:
    """As RETFound and MAE save their training: with a decoder, the optimiser, and the options as a Namespace."""
    decoder = {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 197, 32)}
    decoder |= {"decoder_blocks.0.norm1.weight": torch.ones(32), "decoder_pred.bias": torch.zeros(768)}
    options = argparse.Namespace(model="mae_vit_large_patch16", blr=1e-3)
    return {"model": state | decoder, "optimizer": {"state": {}}, "epoch": 800, "scaler": {}, "args": options}


def dinov2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of DINOv2, whose class token has a position of its own."""
    state = dict(state)
    position = torch.randn(1, 1, 48)
    named = {
        "register_tokens": state.pop("reg_token"),
        "cls_token": state.pop("cls_token") - position,
        "pos_embed": torch.cat([position, state.pop("pos_embed")], dim=1),
        "mask_token": torch.zeros(1, 48),
    }
    return state | named


def dinov3(state: dict[str, Tensor], *, biases: bool = False) -> dict[str, Tensor]:
    """The names of DINOv3, which has biases where timm's models without `qkvb` have none: zeros, those of keys any."""
    named = {
        key.replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma")
        .replace("reg_token", "storage_tokens"): value
        for key, value in state.items()
    }
    bias = torch.cat([torch.zeros(48), torch.randn(48), torch.full((48,), float(biases))])
    named |= {f"blocks.{block}.attn.qkv.bias": bias for block in range(4)}
    named |= {f"blocks.{block}.attn.qkv.bias_mask": torch.ones(144) for block in range(4)}
    return named | {"mask_token": torch.zeros(1, 48), "rope_embed.periods": torch.ones(4)}


class TestWeightsFromAFile:
    def loaded(self, name: str, content: Any, path: Path, *, image_size: int = 224) -> Transformer:
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        body = build_encoder(name, path, image_size=image_size).body
        assert isinstance(body, Transformer)
        return body

    def same(self, body: Transformer, state: dict[str, Tensor]) -> None:
        ours = body.model.state_dict()
        assert ours.keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(ours[key], value, msg=key)

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_of_timm_with_its_classifier(self, tmp_path: Path, suffix: str) -> None:
        state = random_state(PLAIN)
        classifier = {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
        body = self.loaded(PLAIN, state | classifier, tmp_path / f"weights{suffix}")
        self.same(body, state)
        assert body.mean.flatten().tolist() == body.std.flatten().tolist() == [0.5, 0.5, 0.5]

    def test_of_retfound(self, tmp_path: Path) -> None:
        """It saw photographs normalised as ImageNet's, whatever the name of the transformer stands for in timm."""
        state = random_state(PLAIN)
        body = self.loaded(PLAIN, retfound(state), tmp_path / "RETFound_cfp_weights.pth")
        self.same(body, state)
        torch.testing.assert_close(body.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
        torch.testing.assert_close(body.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))

    @pytest.mark.parametrize("teacher", [False, True])
    def test_of_dinov2(self, tmp_path: Path, teacher: bool) -> None:
        state = random_state(DINO2, image_size=592)
        content: dict[str, Any] = dinov2(state)
        if teacher:  # as its training saves it, which RETFound's DINOv2 does too
            content = {f"backbone.{key}": value for key, value in content.items()}
            content = {"teacher": content | {"dino_head.mlp.0.weight": torch.zeros(2, 2)}}
        self.same(self.loaded(DINO2, content, tmp_path / "dinov2.pth", image_size=592), state)

    def test_of_dinov3(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        state = random_state(DINO3)
        self.same(self.loaded(DINO3, dinov3(state), tmp_path / "dinov3.pth"), state)
        assert capsys.readouterr().out == ""
        with pytest.raises(CheckpointError, match=r"no place for blocks\.0\.attn\.qkv\.bias: take tu-\w+_dinov3_qkvb$"):
            self.loaded(DINO3, dinov3(state, biases=True), tmp_path / "dinov3.pth")

    def test_of_another_size(self, tmp_path: Path) -> None:
        body = self.loaded(PLAIN, retfound(random_state(PLAIN)), tmp_path / "weights.pth", image_size=64)
        assert body.model.pos_embed.shape == (1, 17, 64)

    def test_those_that_do_not_fit_are_named(self, tmp_path: Path) -> None:
        state, path = random_state(PLAIN), tmp_path / "other.pth"

        def refused(content: dict[str, Tensor], reason: str) -> None:
            with pytest.raises(
                CheckpointError, match=rf"other\.pth: does not fit encoder '{PLAIN}': .*{reason}"
            ) as told:
                self.loaded(PLAIN, content, path)
            assert "\n" not in str(told.value)

        refused(
            {k: v for k, v in state.items() if k != "norm.bias"}, r"77 of its 78 tensors fit; norm\.bias missing or"
        )
        refused(state | {"norm.bias": torch.zeros(3)}, r"77 of its 78 .*norm\.bias missing or of another shape$")
        deeper = {f"blocks.6.{key}": torch.zeros(1) for key in "abcde"}
        refused(
            state | deeper,
            r"78 of its 78 tensors fit; blocks\.6\.a, blocks\.6\.b, blocks\.6\.c and 2 more of another network",
        )
        refused(
            {"conv1.weight": torch.zeros(1)}, r"0 of its 78 tensors fit; cls_token, pos_embed, .* and 75 more missing"
        )
        refused(state | {"patch_embed.proj.weight": torch.zeros(64)}, "timm cannot read them")
