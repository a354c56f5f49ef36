"""That the benchmark measures what it says: its rival computes the same, and its ratios are ratios."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_runs import TINY, tiny_network

from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.inference.predict import Predictor
from fundus_seg.ops import native, translation_variant_conv2d

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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

    ours = tiny_network().eval()
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
    ticks = iter([0.0, 3.0, 4.0, 5.0])
    assert side_by_side({"a": list}, rounds=2, warm_up=0, clock=lambda: next(ticks)).seconds == {"a": [3.0, 1.0]}


def test_a_job_runs_at_the_level_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpu import at_level

    monkeypatch.delenv(native.LEVEL_VARIABLE, raising=False)
    before, found = native.level(), []
    at_level("baseline", lambda: found.append(native.level()))()
    assert found == ["baseline"]
    assert native.level() == before


@pytest.mark.slow
def test_the_page_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    import cpu

    page = tmp_path / "cpu.md"
    compiler, *_ = os.environ["CXX"].split()  # torch.compile takes no options with it
    monkeypatch.setattr(cpu, "CHANNELS", 32)
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--rounds", "2", "--image", "64", "--batch", "2", "--out", str(page)])
    with torch._inductor.config.patch({"cpp.cxx": (None, compiler)}):
        cpu.main()
    text = page.read_text("utf8")
    assert "| inference, batch 1, 64x64, tvconv, baked | depthwise |" in text
    for level in native.levels():
        assert f", {level}, 1 thread | bfloat16 | channels last |" in text
    assert "nan" not in text


class _Mark:
    """As a CUDA event, on the host's clock."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Mark) -> float:
        return 1e3 * (end.at - self.at)


def test_the_gpu_table_times_the_steps_of_a_real_run(
    draw_root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_table

    monkeypatch.setattr(gpu_table, "mark", _Mark)
    settings = ["train.threads=1", "train.epochs=4"]
    config = load_config("tiny", overrides=settings, arguments={"holdout": "A"})
    cost = gpu_table.measure(config, open_root(draw_root(domains="AB")))
    assert [len(marks) for marks in gpu_table.TimedBatches.marks] == [3, 3, 3, 3]  # two steps an epoch
    assert 0 < 2 * cost.step.first <= 1e3 * cost.epoch.third
    assert cost.evaluation > 0 and cost.validating > 0 and 0 < cost.writing < cost.epoch.third
    assert cost.waits == ()


def test_the_gpu_table_extrapolates_to_120_runs() -> None:
    """A run: 6 s once, 40 epochs of 0.5 s, 4 s of evaluation, half a minute; 3 x 40 of them, an hour."""
    from gpu_table import Cost, report
    from timing import Spread

    cost = Cost(Spread(20.0, 19.0, 21.0), Spread(0.5, 0.5, 0.5), once=6.0, evaluation=4.0, validating=0.1)
    text = report(dict.fromkeys(("conv", "depthwise", "tvconv"), cost), "a GPU")
    assert "| tvconv | 20.00 (19.00-21.00) | 0.50 (0.50-0.50) | 0.10, 0.00 | 6.0 | 4.0 | 0.50 |" in text
    assert text.endswith("120 runs, one after another, take 60 minutes; aim: less than 60, not reached.")


def test_the_gpu_table_counts_epochs_beside_all_workers() -> None:
    """Two workers, two runs each, of which every second one is alone in its last epoch."""
    from gpu_table import OPS, Timeline, crowded, grid_report

    def run(op: str, process: int, begun: float, lengths: tuple[float, ...]) -> Timeline:
        starts = [begun + 1 + sum(lengths[:count]) for count in range(len(lengths) + 1)]
        return Timeline(op, process, begun, tuple(starts[:-1]), starts[-1], starts[-1] + 2)

    lines = [run("conv", 1, 0.0, (3.0, 2.0, 2.0)), run("conv", 2, 0.0, (3.0, 2.0, 2.0, 2.0))]
    assert lines[0].once == 2.0  # one second before the first epoch, one that this takes longer
    assert crowded(lines, jobs=2) == [("conv", 2.0)] * 4
    runs = [run(op, process, 20.0 * round_, (3.0, 2.0, 2.0)) for op in OPS for process in (1, 2) for round_ in (0, 1)]
    # A run: 2 s once, 40 epochs of 2 s, 2 s of evaluation; two at a time 84 s for two; and 6 s for the first worker.
    assert "120 runs by 2 workers take 84 minutes" in grid_report(runs, 6.0, 2, "a GPU")


def test_a_data_root_as_large_as_the_paper_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_table

    monkeypatch.setattr(gpu_table, "CASES", {"A": {"train": 5, "test": 2}, "B": {"train": 3, "test": 4}})
    root = open_root(gpu_table.as_many_as_the_paper(tmp_path / "root", per_domain=3))
    assert root.phantom and root.domains == ("A", "B")
    assert [len(root.cases(domain, split)) for domain in "AB" for split in ("train", "test")] == [5, 2, 3, 4]


@pytest.mark.slow
def test_the_parts_of_a_gpu_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_step

    monkeypatch.setattr(gpu_step, "mark", _Mark)
    config = {"conv": load_config("tiny", arguments={"holdout": "A", "model.op": "conv"})}
    assert "summary: conv: a step takes" in gpu_step.steps_report(config, "cpu", 2)
    assert "same bits twice: True" in gpu_step.upsampling_report(config, "cpu", 2)
    assert "summary: conv: 0 host waits in a step." in gpu_step.waits_report(config, "cpu", 2)
    assert "summary: conv: 0 kernels a step" in gpu_step.profile_report(config, "cpu", 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_gpu_table_says_that_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_table

    monkeypatch.setattr(sys, "argv", ["gpu_table.py"])
    assert gpu_table.main() == 1
    assert capsys.readouterr().err == "error: no CUDA device here: run this on a machine with an NVIDIA GPU.\n"


def test_predict_is_compared_on_masks_of_usual_size(tmp_path: Path) -> None:
    from predict import Drawn, _steps, _throughput, report
    from timing import Timings

    predictor = Predictor(Drawn(tiny_network()), device=torch.device("cpu"))
    disc, cup = predictor(np.zeros((80, 80, 3), np.uint8))
    assert 0.1 < disc.mean() < 0.4
    assert 0 < cup.mean() < disc.mean()
    timings = _throughput(predictor, tmp_path, "96x80", 3, 2)
    steps = _steps(predictor, tmp_path, "96x80")
    assert len(list((tmp_path / "96x80-1/masks").iterdir())) == 3
    assert min(timings.seconds["predict"]) > 0 and len(steps) == 8
    made = Timings({key: [2.4, 2.4] for key in ("predict", "network", "bare", "own", "others")})
    assert len(timings.seconds["others"]) == len(timings.seconds["predict"]) == 2
    text = report({"800x800": made, "2124x2056": made}, {"800x800": steps}, [100, 105], 1000)
    assert "| 800x800 | 100.00 (100.00-100.00) | 100.00 (100.00-100.00) | 1.00 (1.00-1.00) | >= 0.9 | yes |" in text
    assert "| ratio | 1.05 | <= 1.1 | yes |" in text


@pytest.mark.slow
def test_the_page_of_methods_says_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import methods

    steps = ("train.epochs=1", "train.steps_per_epoch=1", "train.threads=1")
    for name, value in {"OPS": ("conv",), "METHODS": ("none", "vrex"), "SEEDS": range(1), "SETTINGS": steps}.items():
        monkeypatch.setattr(methods, name, value)
    scores, adapted = methods.measure(tmp_path, ["A"])
    assert [*scores] == [("none", "conv"), ("vrex", "conv")]
    assert [*adapted] == [("none", "conv")]
    text = methods.report(scores, adapted)
    (plain,) = scores["none", "conv"]
    disc = 100 * plain.cases.query("structure == 'disc'")["dsc"].mean()
    assert f"Dice of the disc on A, %:\n\n| method | conv |\n|---|---:|\n| none | {disc:.1f} [" in text
    (best,) = adapted["none", "conv"]
    cup = 100 * best.cases.query("structure == 'cup'")["dsc"].mean()
    assert (
        f"Dice of the cup on A, %, transductive:\n\n| method | conv |\n|---|---:|\n| none, adapted | {cup:.1f} ["
        in text
    )
    assert "these numbers say nothing about patients" in text


def test_a_recipe_s_ingredients_are_joined_and_compared_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    import recipe

    few = {name: recipe.INGREDIENTS[name] for name in (*recipe.PLAIN, "framing", "flip", "EMA")}
    monkeypatch.setattr(recipe, "INGREDIENTS", few)

    assert recipe.mixed("framing", "flip", "EMA")["train.augment"] == "framing+flip"
    recipes = recipe.recipes()
    whole = tuple(recipe.INGREDIENTS)
    assert len(recipes) == 2 + 2 * len(whole)
    assert recipe.pairs("narrow head")[:2] == (recipe.PLAIN, ("ImageNet weights",))
    assert recipe.pairs("flip")[:3] == ((*recipe.PLAIN, "flip"), recipe.PLAIN, whole)
    without = recipe.pairs("EMA")[3]
    assert "train.average" not in recipes[without] and len(without) == len(whole) - 1

    def scores(*of_seeds: float) -> pd.DataFrame:
        """Two cases of each seed, a point above and below its mean, and a case without truth."""
        rows = [
            {"holdout": "A", "seed": seed, "structure": structure, "case": case, "dsc": dsc, "excluded": case == "c"}
            for structure in ("disc", "cup")
            for seed, mean in enumerate(of_seeds)
            for case, dsc in (("a", mean - 1), ("b", mean + 1), ("c", np.nan))
        ]
        return pd.DataFrame(rows)

    given = dict.fromkeys(recipes, scores(80, 82, 84))
    given[*recipe.PLAIN, "flip"] = scores(83, 85, 87)
    given[whole] = scores(90, 90, 90)
    lines = {line.split(" | ")[0].strip("| "): line for line in recipe.report(given).splitlines()}
    assert "| plain | 82.0 [" in lines["plain"] and "| whole | 90.0 [" in lines["whole"]
    assert lines["flip"].startswith("| flip | | | +3.0 [+3.0, +3.0] | +3.0 [+3.0, +3.0] | +8.0 [")
    assert lines["EMA"].startswith("| EMA | | | +0.0 [+0.0, +0.0] | +0.0 [+0.0, +0.0] | +8.0 [")


def test_plain_formulations_compute_the_same() -> None:
    from operators import OPERATORS
    from plain_operators import PLAIN

    torch.manual_seed(0)
    x = torch.randn(2, 16, 16, 16, dtype=torch.float64)
    for name, plain in PLAIN.items():
        operator = OPERATORS[name](16).double().eval()
        torch.testing.assert_close(plain(operator, x), operator(x))


def test_the_gpu_s_ddf_is_checked_and_timed_beside_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_ddf
    import gpu_operator
    from timing import Spread

    def side_by_side(jobs: Mapping[Any, Callable[[], object]], rounds: int) -> tuple[dict[Any, Spread], int]:
        for job in jobs.values():
            job()
        return {name: Spread.of([4.0 if name[-1] is True else 2.0] * rounds) for name in jobs}, 0

    for module in (gpu_ddf, gpu_operator):
        monkeypatch.setattr(module, "DEVICE", "cpu")
    for name, value in {"MEBI": 1, "GEOMETRIES": [(2, 5, (4, 3), 3)], "side_by_side": side_by_side}.items():
        monkeypatch.setattr(gpu_ddf, name, value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(gpu_ddf, "triton_version", lambda: "0")
    assert gpu_ddf.fault_of((gpu_ddf.GEOMETRIES[0], torch.float32, True)) is None
    text = gpu_ddf.report(rounds=2)
    assert text.count("| 4.00 (4.00-4.00) | 2.00 (2.00-2.00) | 2.0 |") == 8
    forward = gpu_ddf.decoupled_filter
    monkeypatch.setattr(gpu_ddf, "decoupled_filter", lambda x, *a: forward(x, *a) + (x.dtype != torch.float64))
    assert str(gpu_ddf.fault_of((gpu_ddf.GEOMETRIES[0], torch.float32, True))).startswith("WRONG")
