from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest
import torch
from torch import nn

from fundus_seg.builtins import OPERATORS
from fundus_seg.models import build_model
from fundus_seg.ops import TVConv2d
from fundus_seg.profiling import Macs, count_macs, peak_memory, profile
from fundus_seg.reporting.profile_table import profile_table

MIB = 2**20
TINY = {
    "encoder": "tu-mobilenetv2_035",
    "image_size": 64,
    "aspp_channels": 16,
    "expansion": 1,
    "generator_channels": 8,
}
CHANNELS = 112  # of the tiny encoder's deep features, on a map of 4x4


def mebibytes(count: int) -> torch.Tensor:
    return torch.empty(count * MIB, dtype=torch.uint8)


def one_after_the_other() -> None:
    first = mebibytes(1)
    del first
    mebibytes(2)


def side_by_side() -> list[torch.Tensor]:
    return [mebibytes(1), mebibytes(2)]


@pytest.mark.parametrize(
    ("fn", "peak"), [(one_after_the_other, 2), (side_by_side, 3), (lambda: mebibytes(4), 4), (lambda: None, 0)]
)
def test_peak_memory_is_what_stands_at_once(fn: Callable[[], object], peak: int) -> None:
    assert peak_memory(fn) == peak * MIB


def test_peak_memory_counts_from_what_was_there_before() -> None:
    held = [mebibytes(8)]
    assert peak_memory(held.clear) == 0


def test_peak_memory_sees_what_lives_within_an_operator() -> None:
    x = torch.zeros(MIB // 4).view(1, 1, 512, 512)
    # The 3x3 patches of a map of 1 MiB are copied before they are summed: 9 MiB, and the map itself once more.
    assert peak_memory(lambda: nn.functional.unfold(x, 3, padding=1).sum(1)) == pytest.approx(10 * MIB, abs=1024)


def test_peak_memory_sees_the_backward_pass() -> None:
    x = torch.zeros(MIB // 4, requires_grad=True)
    # 1 MiB of exp(x), kept for the backward pass, then 1 MiB of gradient beside it; the sum and its gradient are tiny.
    assert peak_memory(lambda: x.exp().sum().backward()) == pytest.approx(2 * MIB, abs=1024)
    assert x.grad is not None


def test_macs_by_hand() -> None:
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    tvconv = TVConv2d(4, (8, 8), affinity_channels=1, generator_channels=2, generator_layers=1)
    network = nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), depthwise, tvconv).eval()
    positions, taps = 8 * 8, 9
    assert count_macs(network, 8) == Macs(
        image=positions * taps * (3 * 4 + 4 + 4),
        generation=positions * taps * (1 * 2 + 2 * 2 + 2 * 4 * taps),
    )


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_model("tvconv", **TINY).eval()  # type: ignore[arg-type]
    image = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image)
        count_macs(network, 64)
        assert torch.equal(network(image), before)


def test_the_operators_of_the_paper_apart() -> None:
    macs = {op: count_macs(build_model(op).eval(), 256) for op in ("conv", "depthwise", "tvconv")}
    in_channels, channels, positions = 320, 256, 16 * 16
    # conv: 3x3 to the width of the ASPP; depthwise: 1x1 to six times the channels, 3x3 each, 1x1 to that width.
    conv = 9 * in_channels * channels
    depthwise = 6 * in_channels * (in_channels + 9 + channels)
    assert macs["depthwise"].image - macs["conv"].image == 3 * positions * (depthwise - conv)
    assert macs["tvconv"].image == macs["depthwise"].image
    generator = 9 * (4 * 64 + 3 * 64 * 64 + 64 * 6 * in_channels * 9)
    assert [macs[op].generation for op in macs] == [0, 0, 3 * positions * generator]


def test_profiles_of_tiny_networks() -> None:
    profiles = profile([{"op": op, **TINY} for op in ("conv", "depthwise", "tvconv")], size=64, batch=2, repeats=3)
    assert profiles["op"].tolist() == ["conv", "depthwise", "tvconv"]
    assert profiles["parameters"].tolist() == [313_410, 312_402, 536_418]
    conv, depthwise, tvconv = profiles.to_dict("records")
    assert conv["baked_parameters"] == conv["parameters"]
    assert depthwise["baked_parameters"] == depthwise["parameters"]
    # Baked, each of three branches has a kernel per position, and one bias in place of the norm's scale and shift.
    more = 3 * CHANNELS * (9 * 4 * 4 - 9 + 1 - 2)
    assert tvconv["baked_parameters"] == depthwise["parameters"] + more
    assert tvconv["generation_macs"] > conv["generation_macs"] == depthwise["generation_macs"] == 0
    assert (profiles["rounds"] == 3).all()
    assert profiles["latency_q1_s"].min() > 0
    assert (profiles["latency_q1_s"] <= profiles["latency_s"]).all()
    assert (profiles["latency_s"] <= profiles["latency_q3_s"]).all()
    assert profiles["peak_memory_bytes"].min() > 2 * 2 * 64 * 64 * 4  # the logits of both photographs
    assert profiles.loc[0, ["encoder", "image_size", "size", "batch"]].tolist() == [TINY["encoder"], 64, 64, 2]
    assert f"torch {torch.__version__}" in conv["machine"]


@pytest.mark.parametrize("op", ["conv", "tvconv"])
def test_other_sizes_than_the_networks_own(op: str) -> None:
    small, large = (profile([{"op": op, **TINY}], size=size, repeats=2).iloc[0] for size in (32, 64))
    assert small["generation_macs"] == large["generation_macs"]
    assert small["parameters"] == large["parameters"]
    assert small["macs"] < large["macs"]
    assert small["peak_memory_bytes"] < large["peak_memory_bytes"]


def test_the_table_by_hand() -> None:
    of_conv = {
        "op": "conv", "encoder": "resnet18", "image_size": 256, "size": 800, "batch": 2, "rounds": 5,
        "parameters": 10, "trained_parameters": 10, "baked_parameters": 9,
        "macs": 2_000_000, "generation_macs": 500_000,
        "latency_s": 0.003, "latency_q1_s": 0.002, "latency_q3_s": 0.004, "peak_memory_bytes": 3 * MIB,
        "machine": "a machine", "backend": "native",
    }  # fmt: skip
    report = profile_table(pd.DataFrame([of_conv]))
    assert report.frame[["operator", "generation_macs"]].iloc[0].tolist() == ["conv", 500_000]
    table = report.layout
    assert table.rows == (("conv", "10", "9", "2.0", "0.5", "3.00", "2.00", "3.0"),)
    assert table.title == (
        "Inference on 2 photographs of 800x800 pixels: networks for 256x256, encoder resnet18, random weights"
    )
    assert "median and interquartile range of 5 rounds" in table.notes[1]
    assert table.notes[-1] == "a machine; kernels per position: native"


def test_the_table_is_made_without_torch() -> None:
    code = "import sys, fundus_seg.reporting.profile_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def call(command: Callable[..., tuple[str, str]]) -> Callable[..., tuple[str, str]]:
    """`fundus-seg profile` of tiny networks with few repeats: what it prints, once its exit code is as expected."""
    return partial(command, "profile", "--config", "tiny", "--repeats", "2")


def test_csv(call: Callable[..., tuple[str, str]]) -> None:
    out, _ = call("--format", "csv", "--ops", "conv,depthwise,conv")
    table = pd.read_csv(io.StringIO(out), comment="#")
    assert {"operator", "parameters", "baked_parameters", "macs", "generation_macs", "latency_s"} <= set(table)
    assert list(table["operator"]) == ["conv", "depthwise"]
    assert list(table["parameters"]) == [313_410, 312_402]
    assert (table.select_dtypes("number") >= 0).all(axis=None)


@pytest.mark.slow
def test_every_operator_is_measured_unless_some_are_named(call: Callable[..., tuple[str, str]]) -> None:
    out, _ = call("--format", "markdown")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in out.splitlines() if line.startswith("| ")]
    assert rows == ["operator", *OPERATORS]


def test_settings_are_heeded(call: Callable[..., tuple[str, str]]) -> None:
    out, _ = call("--ops", "conv", "--set", "model.aspp_channels=24", "--set", "data.size=96", "--format", "csv")
    assert "1 photograph of 96x96 pixels: networks for 96x96, encoder tu-mobilenetv2_035, random weights" in out
    assert pd.read_csv(io.StringIO(out), comment="#")["parameters"].item() > 313_410


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ops", "tvcnov"], 2, "unknown operator 'tvcnov': did you mean 'tvconv'?"),
        (["--ops", "conv,"], 2, "unknown operator ''"),
        (["--size", "50"], 2, "size 50 is not a multiple of 16: 48 is"),
        (["--size", "0"], 2, "size 0 is not a multiple of 16: 16 is"),
        (["--batch", "0"], 2, "--batch"),
        (["--ops", "tvconv", "--size", "16000"], 1, "batches of 1 at 16000x16000 pixels: lower --batch or --size"),
        (["--ops", "conv", "--batch", "1000000000000"], 1, "at 64x64 pixels: lower --batch or --size"),
    ],
)
def test_wrong_arguments(call: Callable[..., tuple[str, str]], arguments: list[str], code: int, message: str) -> None:
    _, err = call(*arguments, code=code)
    assert message in err
    assert "Traceback" not in err
