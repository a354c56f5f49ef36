"""Suites: their files, what they plan, the table and plots that they end in, and crops that are aligned less well."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from small_runs import settings

from fundus_seg.builtins import OPERATORS
from fundus_seg.data.layout import open_root
from fundus_seg.data.shift import shifted
from fundus_seg.data.transforms import EachCase, augmentation
from fundus_seg.errors import ConfigError, RunError, UsageError
from fundus_seg.experiments import costs, plan, read_suite
from fundus_seg.experiments.suites import suite_names
from fundus_seg.reporting import position_table
from fundus_seg.viz.trade_off import draw_trade_off

OWN = """\
reference: plain
columns:
  plain: {model.op: depthwise}
  maps: {model.op: tvconv}
  plain shifted: {model.op: depthwise, train.shift: 0.2}
  maps shifted: {model.op: tvconv, train.shift: 0.2}
"""


def test_the_suites_of_the_package_are_data():
    assert suite_names() == ["ablations", "operators", "sensitivity"]
    labels = [setup.label for setup in read_suite("operators").setups]
    assert labels == [name for name in OPERATORS if name in labels]
    ablated = read_suite("ablations")
    assert ablated.reference == "tvconv"
    assert len({(setup.op, setup.settings) for setup in ablated.setups}) == len(ablated.setups)
    shifts = [setup.settings for setup in read_suite("sensitivity").setups]
    assert shifts[::2] == shifts[1::2] == [(), ("train.shift=0.05",), ("train.shift=0.1",), ("train.shift=0.2",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {a: {model.op: conv", "not valid YAML"),
        ("columns:\n  a: {model.op: conv}\n  a: {model.op: tvconv}", ":3: not valid YAML: the key 'a' stands"),
        ("columns: {a: {model.op: cnov}}", "column a: .*did you mean 'conv'"),
        ("columns: {a: {model.opp: conv}}", "column a: .*did you mean 'model.op'"),
        ("columns: {a: {train.epochs: 3}}", "column a: it names no operator; add model.op"),
        ("columns: {mean-mask: {model.op: conv}}", "column mean-mask: .*give the column another name"),
        ("columns: {a: {model.op: conv}}\nreference: b", "reference: unknown column 'b'"),
        ("columns: {}", "it has no columns; write columns: "),
        ("columns: [conv]", "it has no columns; write columns: "),
        ("", "it holds no suite; write columns: "),
        ("- conv", "it holds no suite; write columns: "),
        ("rows: {}", "unknown key 'rows'"),
        ("columns: {a: conv}", "column a: it holds no settings; write NAME: "),
        ("columns: {1: {model.op: conv}}", "column 1: its name is no text; write it in quotes"),
        ("columns: {' ': {model.op: conv}}", "column  : ' ' is no name of one line"),
        ('columns: {"a\\nb": {model.op: conv}}', r"column a\\nb: 'a\\nb' is no name of one line"),
        ("columns: {a: {model.op: conv, train.shift: 1.0}}", "column a: train.shift: input should be less than"),
        ("columns: {a: {model.op: conv, scoring.threshold: 0.5}}", "column a: .*never mixes scoring protocols"),
    ],
)
def test_a_fault_in_a_suite_s_file_is_told_with_the_file(text, message, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"suite .*own.yaml.*{message}"):
        read_suite(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("a: {model.op: conv}, b: {model.op: conv, train.shift: 0}", "columns a and b would be one: .*leave one out"),
        ("a: {model.op: conv, model.ablation: replicate}", "column a: model.ablation=replicate has no effect beside"),
    ],
)
def test_a_column_that_is_no_other_network_than_its_name_says_is_refused(columns, message, draw_root, tmp_path):
    (tmp_path / "own.yaml").write_text(f"columns: {{{columns}}}")
    root, suite = open_root(draw_root()), read_suite(str(tmp_path / "own.yaml"))
    with pytest.raises(UsageError, match=message):
        plan(root, tmp_path / "runs", seeds=[0], config="tiny", suite=suite)
    with pytest.raises(UsageError, match=r"model\.op: a whole experiment takes it from the suite"):
        plan(root, tmp_path / "runs", seeds=[0], suite=suite, overrides=["model.op=conv"])


def test_costs_leave_out_a_column_that_has_no_network(draw_root, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "BATCHES", (1,))
    monkeypatch.setattr(costs, "THREADS", (1,))
    options = {"seeds": [0], "holdouts": ["A"], "config": "tiny", "overrides": ["model.placement=decoder"]}
    impossible, possible = plan(open_root(draw_root()), tmp_path, ops=["conv", "depthwise"], **options)
    possible.folder.config.parent.mkdir(parents=True)
    possible.folder.config.touch()
    found = costs.measure_costs([impossible, possible], tmp_path)
    assert found["column"].tolist() == ["depthwise"]
    (kept,) = (tmp_path / "costs").iterdir()
    whole = kept.read_text()
    for cut in (whole.splitlines()[0], whole[: len(whole) // 2], whole.rpartition(",")[0], ""):
        kept.write_text(cut)
        with pytest.raises(RunError, match=f"{kept.name}: cannot be read; remove it"):
            costs.measure_costs([possible], tmp_path)


def test_gains_are_of_operators_that_share_their_shifts(draw_root, tmp_path):
    root, text = open_root(draw_root()), "columns: {a: {model.op: depthwise}, b: {model.op: tvconv, train.shift: 0.2}}"
    (tmp_path / "own.yaml").write_text(text)
    runs = plan(root, tmp_path, seeds=[0], holdouts=["A"], config="tiny", suite=read_suite(str(tmp_path / "own.yaml")))
    with pytest.raises(UsageError, match="it needs depthwise and another operator, each in a column without"):
        position_table(runs, [], None)


def test_networks_of_equal_costs_are_drawn():
    ends = {"row": "disc", "panel": "macs", "x": 22.47, "low": 49.0, "high": 52.0}
    points = pd.DataFrame([{"name": "conv", "y": 50.0, **ends}, {"name": "tvconv", "y": 51.0, **ends}])
    figure = draw_trade_off(points, rows={"disc": "disc"}, panels={"macs": "MACs"}, title="")
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < 20 < 22.47 < 30 < high


def test_a_suite_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'operators'"):
        read_suite("operator")
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file.*ablations, operators, sensitivity"):
        read_suite(str(tmp_path / "none.yaml"))


def test_a_suite_plans_the_runs_that_its_operators_would_make(draw_root, tmp_path):
    root, out = open_root(draw_root()), tmp_path / "runs"
    options = {"seeds": [0], "holdouts": ["A"], "config": "tiny", "overrides": ["optim.lr=3e-4"]}
    suite = read_suite("operators")
    by_suite = plan(root, out, suite=suite, **options)
    by_ops = plan(root, out, ops=[setup.op for setup in suite.setups], **options)
    assert [run.folder.path for run in by_suite] == [run.folder.path for run in by_ops]
    assert by_suite[1].name == by_ops[1].name == "A depthwise seed 0"
    assert by_suite[1].operator.startswith("depthwise-lr=0.0003-")
    varied = plan(root, out, suite=suite, **options, vary=["model.generator_channels=4,8"])
    assert [run.label for run in varied if run.config.model.op in ("conv", "tvconv")] == [
        "conv",
        "tvconv generator_channels=4",
        "tvconv generator_channels=8",
    ]
    with pytest.raises(UsageError, match=r"train\.shift: the columns of suite sensitivity differ in it"):
        plan(root, out, suite=read_suite("sensitivity"), **{**options, "overrides": ["train.shift=0.3"]})
    for runs, message in (
        (by_suite[:1], "it needs depthwise and another operator, each in a column without train.shift"),
        (varied, r"several columns have operator tvconv and train\.shift 0\.0; leave one"),
    ):
        with pytest.raises(UsageError, match=message):
            position_table(runs, [], variances=None)


def test_a_suite_ends_in_one_table_and_its_plots(draw_root, tmp_path, command, monkeypatch):
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    monkeypatch.setattr(costs, "THREADS", (1,))
    root, own = draw_root(train=3, test=3), tmp_path / "own.yaml"
    own.write_text(OWN)
    options = ["--suite", own, "--data", root, "--config", "tiny", "--holdouts", "A", "--runs", "1", "--format", "json"]
    options += ["--set", "train.epochs=1", "--set", "train.steps_per_epoch=1", "--executor", "serial"]
    (listed,) = tables(command("benchmark", *options, "--dry-run").out)
    assert [row["column"] for row in listed["rows"]] == ["plain", "maps", "plain shifted", "maps shifted"]
    assert not (tmp_path / "runs").exists()
    first = command("benchmark", *options, "--plots", tmp_path / "plots")
    assert "[2/4] A maps seed 0: done" in first.err
    for name in ("trade-off", "position", "boxes-dsc"):
        assert (tmp_path / "plots" / f"{name}.svg").stat().st_size
    _, position, table = tables(first.out)
    rows = {row["column"]: row for row in table["rows"]}
    assert list(rows) == ["mean-mask", "plain", "maps", "plain shifted", "maps shifted"]
    assert rows["mean-mask"]["macs"] is None
    assert rows["maps"]["baked_parameters"] < rows["maps"]["parameters"]
    assert rows["maps"]["generation_macs"] > rows["plain"]["generation_macs"] == 0
    assert rows["maps"]["macs"] == rows["maps shifted"]["macs"]
    for name in ("throughput", "latency_s", "peak_memory_bytes", "best_batch", "best_threads"):
        assert rows["plain"][name] > 0
    for name in ("dsc_disc", "hd95_cup"):
        assert rows["maps"][f"{name}_low"] <= rows["maps"][name] <= rows["maps"][f"{name}_high"]
    assert rows["maps"]["gain_cup"] == pytest.approx(rows["maps"]["dsc_cup"] - rows["plain"]["dsc_cup"])
    assert any(rows["plain"]["machine"] in note for note in table["notes"])
    gains = {(row["structure"], row["holdout"], row["shift"]): row for row in position["rows"]}
    assert gains["cup", "A", 0.0]["gain"] == gains["cup", "all", 0.0]["gain"] == pytest.approx(rows["maps"]["gain_cup"])
    moved = gains["cup", "A", 0.2]
    assert moved["change"] == pytest.approx(moved["gain"] - gains["cup", "A", 0.0]["gain"])
    assert moved["ratio"] > 0
    monkeypatch.setattr(costs, "profile", None)  # what was measured on this machine is not measured again
    monkeypatch.setattr(costs, "throughputs", None)
    assert command("benchmark", *options).out == first.out
    assert "give one of the two" in command("benchmark", *options, "--ops", "conv", code=2).err
    assert "unknown suite ''" in command("benchmark", *options[2:], "--suite", "", code=2).err
    assert "unknown domain ''" in command("benchmark", *options, "--holdouts", "", code=2).err
    assert "is a file" in command("benchmark", *options, "--plots", own, code=2).err


def tables(text):
    """The JSON documents that a command printed."""
    decoder, found, start = json.JSONDecoder(), [], 0
    while start < len(text.rstrip()):
        document, start = decoder.raw_decode(text, start)
        found.append(document)
        start += len(text[start:]) - len(text[start:].lstrip())
    return found


@pytest.mark.parametrize("name", ["none", "flip+colour", "scale-crop"])
def test_a_shift_moves_photograph_and_masks_together(name):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    masks = np.stack([image[..., 0] > 100, image[..., 0] > 180]).astype(np.uint8)

    def made(shift):
        augment = augmentation(name, 64, 7, shift=shift)
        if augment is None:
            return image, masks
        if isinstance(augment, EachCase):
            return augment.augment(image, masks, np.random.default_rng(3))
        return augment(image, masks)

    (plain, plain_masks), (moved, moved_masks) = made(0.0), made(0.2)
    moves = [(down, right) for down in range(-13, 14) for right in range(-13, 14)]
    found = [move for move in moves if np.array_equal(shifted(plain, np.array(move) / 64, 1.0), moved)]
    assert len(found) == 1
    np.testing.assert_array_equal(shifted(plain_masks, np.array(found[0]) / 64, 1.0, axes=(1, 2)), moved_masks)


def test_a_shift_names_the_run_only_where_there_is_one():
    assert settings("train.shift=0").recipe(all_domains="ABCD") == settings().recipe(all_domains="ABCD")
    assert "shift=0.1" in settings("train.shift=0.1").recipe(all_domains="ABCD")
