"""That the benchmark measures what it says: its rival computes the same, and its ratios are ratios."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fundus_seg.models import build_model
from fundus_seg.ops import translation_variant_conv2d

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {"encoder": "tu-mobilenetv2_035", "image_size": 64, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_the_rival_computes_the_same_operator(stride: int, dilation: int) -> None:
    from naive import naive_translation_variant_conv2d

    x, size = torch.randn(2, 3, 8, 6, dtype=torch.float64), (8 // stride, 6 // stride)
    weight = torch.randn(3, 9, *size, dtype=torch.float64)
    torch.testing.assert_close(
        naive_translation_variant_conv2d(x, weight, stride=stride, dilation=dilation),
        translation_variant_conv2d(x, weight, stride=stride, dilation=dilation),
    )


def test_the_rival_s_network_computes_the_same_and_generates_every_time() -> None:
    from naive import naive_network

    torch.manual_seed(0)
    ours = build_model("tvconv", **TINY).eval()  # type: ignore[arg-type]
    torch.manual_seed(0)
    rival = naive_network(**TINY).eval()
    made: list[int] = []
    rival.aspp.branches[0][3].generator.register_forward_hook(lambda *_: made.append(1))  # type: ignore
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(rival(images), ours(images))
        rival(images)
    assert len(made) == 2


def test_ratios_are_taken_within_each_round() -> None:
    from timing import Timings, side_by_side

    timings = Timings({"slow": [2.0, 40.0, 6.0], "fast": [1.0, 10.0, 2.0]})
    assert str(timings.ratio("slow", to="fast")) == "3.00 (2.50-3.50)"
    assert timings.milliseconds("fast").median == 2000
    calls: list[str] = []
    side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warm_up=1)
    assert "".join(calls) == "ababab"


@pytest.mark.slow
def test_the_page_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cpu

    page = tmp_path / "cpu.md"
    monkeypatch.setattr(cpu, "CHANNELS", 32)
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--rounds", "2", "--image", "64", "--batch", "2", "--out", str(page)])
    cpu.main()
    text = page.read_text("utf8")
    assert "| inference, batch 1, 64x64, tvconv, baked | depthwise |" in text
    assert "nan" not in text


def test_the_readme_shows_the_last_table() -> None:
    def ratios(page: Path) -> list[str]:
        return [
            line for line in page.read_text("utf8").splitlines() if line.startswith(("| operator (", "| training "))
        ]

    measured = ratios(BENCHMARKS / "cpu.md")
    assert len(measured) > 10
    assert ratios(BENCHMARKS.parent / "README.md") == measured
