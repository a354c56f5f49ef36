"""A network handed on as `.safetensors` loads as the checkpoint that it was made of, and says what trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_checkpoint import TINY

from fundus_seg import load_model
from fundus_seg.errors import CheckpointError, UsageError
from fundus_seg.exchanged import HEADER, read_header
from fundus_seg.inference.export import export_model
from fundus_seg.inference.members import find_members, is_model
from fundus_seg.models import build_model
from fundus_seg.models.checkpoint import load_network, network_state, read_checkpoint, write_checkpoint
from fundus_seg.models.exchange import write_exchange
from fundus_seg.protocol import Scoring
from fundus_seg.runs.origin import HANDED_ON, Origin, origin_of, to_hand_on

USAGE = {
    "image_interpolation": "lanczos",
    "scoring": Scoring(threshold=0.5).model_dump(),
    "framing": {"low": 0.4, "high": 0.8},
    "phantom": True,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a small network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("depthwise", **TINY)
    path = tmp_path / "model.ckpt"
    write_checkpoint(path, network_state(network, USAGE))
    return path


@pytest.fixture
def exported(checkpoint: Path) -> Path:
    """The same network to hand on."""
    return export_model(checkpoint, checkpoint.with_name("model.safetensors"), {"licence": "MIT"})


def test_it_is_the_checkpoint_in_half_precision(checkpoint: Path, exported: Path) -> None:
    before, after = read_checkpoint(checkpoint), read_checkpoint(exported)
    assert {key: before[key] for key in before if key != "model"} == {
        key: after[key] for key in after if key != "model"
    }
    for name, value in before["model"].items():
        kept = value.half().float() if value.is_floating_point() else value
        assert torch.equal(after["model"][name], kept)
    assert exported.stat().st_size < 0.6 * checkpoint.stat().st_size


def test_it_predicts(checkpoint: Path, exported: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    predictor = load_model(exported)
    assert (predictor.scoring, predictor.framing.low, predictor.phantom) == (Scoring(threshold=0.5), 0.4, True)
    wanted = load_model(checkpoint).probabilities(image)
    np.testing.assert_allclose(predictor.probabilities(image), wanted, atol=0.01)


def test_equal_networks_give_equal_bytes(checkpoint: Path, exported: Path) -> None:
    again = export_model(checkpoint, exported.with_name("again.safetensors"), {"licence": "MIT"})
    assert again.read_bytes() == exported.read_bytes()
    assert read_header(exported)["licence"] == "MIT"


def test_it_is_a_model_among_the_arguments(exported: Path, tmp_path: Path) -> None:
    assert is_model(exported)
    assert [member.checkpoint for member in find_members([exported])] == [exported]


def test_what_trained_it_is_read_again(exported: Path) -> None:
    assert origin_of(str(exported)).domains is None
    told = Origin("/home/me/runs/seed-0", "0" * 16, ("A", "B"), {"A/train": "1" * 16}, phantom=True)
    content = read_checkpoint(exported)
    write_exchange(exported, content, {HANDED_ON: to_hand_on(told)})
    origin = origin_of(str(exported))
    assert (origin.path, origin.domains, origin.phantom) == (str(exported), ("A", "B"), True)
    assert "/home/me" not in str(read_header(exported))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other", "spec", "json", "usage"])
def test_what_is_no_checkpoint_is_one_line(exported: Path, damage: str) -> None:
    content: dict[str, Any] = read_checkpoint(exported)
    if damage in ("cut", "empty", "text"):
        data = exported.read_bytes()
        exported.write_bytes({"cut": data[:-100], "empty": b"", "text": b"not a network"}[damage])
    elif damage == "other":
        save_file(content["model"], exported, {})
    else:
        save_file(content["model"], exported, {HEADER: {"spec": "[]", "json": "{", "usage": '{"usage": {}}'}[damage]})
    with pytest.raises(CheckpointError, match=r"^[^\n]*model\.safetensors: [^\n]*$"):
        load_network(exported)


def test_numbers_too_large_for_half_precision_are_refused(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    next(iter(content["model"].values())).mul_(1e9)
    write_checkpoint(checkpoint, content)
    with pytest.raises(CheckpointError, match="is too large for half precision"):
        export_model(checkpoint, checkpoint.with_name("large.safetensors"))
    assert not checkpoint.with_name("large.safetensors").exists()


def test_names_are_checked(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"a network is written as \.safetensors; name the file so"):
        export_model(checkpoint, checkpoint.with_name("model.pt"))
    with pytest.raises(UsageError, match="usage: the file uses this name itself"):
        export_model(checkpoint, checkpoint.with_name("model.safetensors"), {"usage": "mine"})


def test_the_command(command: Any, checkpoint: Path) -> None:
    out = checkpoint.with_name("out.safetensors")
    assert command("export", checkpoint, out, "--about", "licence=MIT").out == f"{out}\n"
    told = command("export", checkpoint, out, "--about", "licence", code=2).err
    assert "--about licence: give NAME=TEXT" in told
