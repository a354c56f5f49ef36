"""The computed numbers of docs/scaling.md, computed again."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from fundus_seg.config import load_config, load_recipe, resolve_sources
from fundus_seg.experiments.capacity import run_bytes
from fundus_seg.experiments.grid_run import Cell
from fundus_seg.models import build_model
from fundus_seg.runs.folder import RunFolder

REPOSITORY = Path(__file__).parents[1]
PAGE = re.sub(r"\s+", " ", REPOSITORY.joinpath("docs", "scaling.md").read_text("utf8"))
TRAIN, TEST = {"A": 50, "B": 99, "C": 320, "D": 320}, {"A": 51, "B": 60, "C": 80, "D": 80}
"""Cases of the paper's splits."""
RUNS = 40
"""Of each operator: 4 holdouts, 10 seeds."""


def found(pattern):
    match = re.search(pattern, PAGE)
    assert match, pattern
    return [float(number) for number in match.groups()]


def row(label, operators=3):
    cells = re.search(rf"\| {re.escape(label)} \|([^|]*)\|([^|]*)\|([^|]*)\|", PAGE)
    assert cells, label
    return [float(cell) for cell in cells.groups()[-operators:]]


def step(op):
    """Seconds of a step of 16, from benchmarks/cpu.md."""
    times = REPOSITORY.joinpath("benchmarks", "cpu.md").read_text("utf8")
    match = re.search(rf"\| step: {op}, bf16, channels last \| ([\d.]+)", times)
    assert match
    return float(match[1]) / 1000


@pytest.fixture(scope="module")
def networks():
    with torch.device("meta"):
        return [build_model(op, encoder_weights=None) for op in ("conv", "depthwise", "tvconv")]


def test_parameters_and_checkpoints(networks):
    parameters = [sum(each.numel() for each in network.parameters()) for network in networks]
    weights = [sum(each.nbytes for each in network.state_dict().values()) / 1e6 for network in networks]
    assert row("parameters") == parameters
    assert row("weights of a checkpoint [MB]") == pytest.approx(weights, abs=0.05)
    training = [size + 2 * 4 * count / 1e6 for size, count in zip(weights, parameters, strict=True)]
    last = row("`last.ckpt` while training: weights and Adam's two means [MB]")
    assert last == pytest.approx(training, abs=0.1)
    an_epoch, a_run = found(r"at most (\d+) MB an epoch, ([\d.]+) GB a run")
    assert (an_epoch, a_run) == pytest.approx((training[2] + weights[2], 0.04 * (training[2] + weights[2])), rel=2e-3)
    assert found(r"are ([\d.]+) GB for 120 runs") == pytest.approx([RUNS * 2 * sum(weights) / 1e3], abs=0.05)
    peak, done = weights[2] + 2 * training[2], 2 * weights[2]
    assert found(r"takes up to ([\d.]+) GB more") == pytest.approx([(peak - done) / 1e3], abs=0.05)
    assert found(r"probe-holdout` adds ([\d.]+) GB") == pytest.approx([RUNS * sum(weights) / 1e3], abs=0.05)
    assert found(r"means of tvconv are ([\d.]+) GB") == pytest.approx([4 * 4 * parameters[2] / 1e9], abs=0.05)


def test_steps_and_hours():
    paper = load_recipe("paper").train
    steps = math.ceil(max(TRAIN.values()) / paper.batch_per_domain)
    assert found(r"⌈320 / 16⌉ = (\d+), whatever") == [steps]
    assert all(max(count for key, count in TRAIN.items() if key != holdout) == 320 for holdout in TRAIN)
    measured = [step(op) for op in ("depthwise", "tvconv")]
    assert row("step of 16 photographs, CPU [s]", 2) == pytest.approx(measured, abs=0.005)
    assert row("step of 48 photographs, CPU, at most [s]", 2) == pytest.approx(
        [3 * each for each in measured], abs=0.05
    )
    hours = [3 * each * steps * paper.epochs / 3600 for each in measured]
    assert row(f"run of {steps * paper.epochs} steps, CPU, at most [h]", 2) == pytest.approx(hours, abs=0.05)
    assert found(r"are at most (\d+) h") == pytest.approx([3 * RUNS * hours[1]], rel=0.02)


def test_memory_of_a_step_and_of_the_cache():
    each = row("tensors of a step, for each photograph [MiB]")
    assert row("the same, of 48 photographs [GiB]") == pytest.approx([48 * size / 1024 for size in each], abs=0.05)
    size = load_recipe("paper").data.size
    case, whole, cases = found(r"5 bytes a pixel, (\d+) a case: (\d+) MB for all (\d+) cases")
    assert (case, cases) == (5 * size**2, sum(TRAIN.values()) + sum(TEST.values()))
    assert whole == pytest.approx(case * cases / 1e6, abs=0.5)
    assert found(r"as well, at most (\d+) MB") == pytest.approx([case * (320 + 320 + 99) / 1e6], abs=0.5)


def test_memory_that_the_grid_reckons_with():
    config = resolve_sources(load_config("paper", arguments={"holdout": "A"}), "ABCD", where=Path())
    run = run_bytes(Cell(config, "", Path(), RunFolder(Path())))
    each, base, whole, gpu_runs, gpu = found(
        r"reckons with (\d+) MiB .*? and (\d+) GB .*?: ([\d.]+) GB .*? (\d+) fit into (\d+) GB"
    )
    assert each == max(row("tensors of a step, for each photograph [MiB]"))
    assert run == pytest.approx(base * 1e9 + 48 * each * 2**20)
    assert whole == pytest.approx(run / 1e9, abs=0.05)
    assert gpu_runs == gpu * 1e9 // run
    memory, runs = found(r"reckoning (\d+) GB hold (\d+) runs")
    assert runs == memory * 1e9 // run


def test_cases_of_validation_and_evaluation():
    sources = [sum(TEST.values()) - count for count in TEST.values()]
    assert found(r"half of (\d+) to (\d+) cases") == [min(sources), max(sources)]
    inference, scoring, seconds = found(r"float32, (\d+) ms .*? one core, ([\d.]+) ms .*?: 80 cases take ([\d.]+) s")
    assert seconds == pytest.approx(80 * (inference + scoring) / 1000, abs=0.05)


def test_the_fixed_part_of_a_step():
    """fixed + 8 x = 1.39 (fixed + 4 x): fixed is (8 - 4 · 1.39) / 0.39 photographs' worth x."""
    (ratio,) = found(r"8 photographs takes ([\d.]+)")
    worth = (8 - 4 * ratio) / (ratio - 1)
    assert "worth six photographs" in PAGE and worth == pytest.approx(6, abs=0.5)
    assert found(r"six photographs, (\d+) % of a step of 48") == pytest.approx([100 * worth / (worth + 48)], abs=0.5)
