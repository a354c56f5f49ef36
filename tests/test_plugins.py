from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import killed_in_epoch, settings, weights

from fundus_seg import load_model, plugins
from fundus_seg.builtins import AUGMENTATIONS, LOSSES, METHODS, OPERATORS
from fundus_seg.data import transforms
from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError, ProtocolError, RunError, UsageError
from fundus_seg.evaluation.records import write_evaluation
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.models import build_model
from fundus_seg.models.operators import BranchSettings, tried
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.folder import RunFolder
from fundus_seg.training import methods, task, train

PAGE = Path(__file__).parents[1].joinpath("docs", "extending.md").read_text("utf8")
EXAMPLES = {text.split()[1].removesuffix(".py"): text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
FORM = r"write an operator as factory\(in_channels, out_channels, rate, settings\) -> torch\.nn\.Module$"
USED = {
    "model.op": "separable:block",
    "train.loss": "overlap:soft_dice",
    "train.augment": "mirror:left_right",
    "train.method": "worst:WorstDomain",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current directory, and a process that has loaded nothing."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget(monkeypatch)
    yield folder
    forget(monkeypatch)


@pytest.fixture
def examples(here):
    for name, text in EXAMPLES.items():
        (here / f"{name}.py").write_text(text)


def forget(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_digests", {})
    for name in (*EXAMPLES, "broken", "odd"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("builtin", [OPERATORS, LOSSES, AUGMENTATIONS, METHODS])
def test_every_built_in_name_is_found_and_is_no_plugin(builtin):
    for name, place in builtin.items():
        assert plugins.is_plugin(place)
        assert callable(plugins.find("built-in", name, builtin))
        assert not plugins.is_plugin(name)
        assert plugins.is_unnamed(place)


def test_the_registry_imports_nothing_of_its_own():
    code = "import typing, sys; import fundus_seg; old = {*sys.modules}; import fundus_seg.builtins"
    code += "; print(*sorted({*sys.modules} - old))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["fundus_seg.builtins"]


def test_the_page_has_an_example_of_fifteen_lines_for_every_setting():
    assert set(EXAMPLES) == {name.split(":")[0] for name in USED.values()}
    for text in EXAMPLES.values():
        assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 15
    for setting, name in USED.items():
        assert f"--op {name}" in PAGE if setting == "model.op" else f"--set {setting}={name}" in PAGE


@pytest.mark.parametrize("setting", USED)
def test_each_example_changes_the_run_and_is_recorded(setting, examples, draw_root, tmp_path):
    root = open_root(draw_root())
    plain = train(settings(), root, tmp_path / "runs")
    run = train(settings(f"{setting}={USED[setting]}"), root, tmp_path / "runs")
    section, key = setting.split(".")
    content = run.read_config()
    assert content[section][key] == USED[setting]
    assert content["inputs"][setting] == plugins.load(USED[setting]).digest
    assert run.path != plain.path
    assert ":" not in run.path.relative_to(tmp_path).as_posix()
    ours, theirs = weights(run), weights(plain)
    assert ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_of_four_examples_goes_on_to_the_same_bits_and_is_scored(examples, draw_root, tmp_path, monkeypatch):
    root = open_root(draw_root())
    overrides = [f"{setting}={name}" for setting, name in USED.items()]
    whole = train(settings(*overrides), root, tmp_path / "whole")

    with killed_in_epoch(2):
        train(settings(*overrides), root, tmp_path / "parts")
    forget(monkeypatch)
    parts = train(settings(*overrides), root, tmp_path / "parts")
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    column = evaluate(parts).meta.run.name
    assert column.startswith("separable.block-augment=mirror_left_right-loss=overlap_soft_dice-method=worst_WorstDom")
    other = train(settings(), root, tmp_path / "parts")
    assert score_table([evaluate(parts), evaluate(other)]).layout.columns == ("mean-mask", "tvconv", column)


def test_a_checkpoint_imports_nothing_that_the_caller_has_not_named(examples, draw_root, tmp_path, monkeypatch):
    run = train(settings("model.op=separable:block"), open_root(draw_root()), tmp_path / "runs")
    forget(monkeypatch)
    for attempt in (lambda: load_model(run.path), lambda: evaluate(run)):
        with pytest.raises(CheckpointError, match=r"separable:block is code, .* --trust separable:block"):
            attempt()
    assert "separable" not in sys.modules
    import separable  # noqa: F401  # type: ignore[import-not-found]

    with pytest.raises(CheckpointError, match="which no file may import"):
        load_model(run.path)
    plugins.load("separable:block")
    assert load_model(run.path)(np.zeros((50, 50, 3), np.uint8)).shape == (2, 50, 50)


def test_settings_beside_a_checkpoint_import_nothing_either(here, draw_root, tmp_path):
    run = train(settings(), open_root(draw_root()), tmp_path / "runs")
    (here / "broken.py").write_text("def f(settings): ...")
    run.config.write_text(run.config.read_text("utf8").replace("op: tvconv", "op: broken:f"))
    with pytest.raises(CheckpointError, match=r"best\.ckpt: not of the network that .*config\.yaml names"):
        evaluate(run)
    assert "broken" not in sys.modules


def test_the_digest_is_that_of_the_code_that_runs(examples, here):
    before = plugins.load("worst:WorstDomain").digest
    (here / "worst.py").write_text(EXAMPLES["worst"] + "\n")
    assert plugins.load("worst:strict_vrex").digest == before


def test_two_files_of_one_plugin_stand_in_no_table_together(examples, here, draw_root, tmp_path, monkeypatch):
    root = open_root(draw_root())
    chosen = f"train.loss={USED['train.loss']}"
    first = evaluate(train(settings(chosen), root, tmp_path / "first"))
    assert first.meta.code == {"train.loss": plugins.load(USED["train.loss"]).digest}
    (here / "overlap.py").write_text(EXAMPLES["overlap"].replace("+ 1", "+ 2"))
    forget(monkeypatch)
    second = evaluate(train(settings(chosen, "seed=1"), root, tmp_path / "second"))
    column = re.escape(first.meta.run.name)
    with pytest.raises(ProtocolError, match=rf"two files of train\.loss \({column}\) in one table: \w+ in .*first"):
        score_table([first, second])
    older = first.meta.model_copy(update={"code": {}})
    write_evaluation(first.path, older, first.path.read_text("utf8"))
    written = first.path.stat().st_mtime_ns
    again = evaluate(RunFolder(first.path.parents[1]))  # as an older version left it: not scored anew
    assert (again.meta, first.path.stat().st_mtime_ns) == (older, written)
    assert score_table([again, second]).layout.columns[1:] == score_table([again]).layout.columns[1:]


def test_a_changed_file_is_refused(examples, here, draw_root, tmp_path, monkeypatch):
    root = open_root(draw_root())
    run = train(settings("model.op=separable:block"), root, tmp_path / "runs")
    (here / "separable.py").write_text(EXAMPLES["separable"].replace("padding=rate, dilation=rate", "padding=1"))
    forget(monkeypatch)
    with pytest.raises(RunError, match=r"another run \(inputs.model.op: \w+ there, \w+ now\)"):
        train(settings("model.op=separable:block"), root, tmp_path / "runs")
    with pytest.raises(CheckpointError, match="file of separable:block has changed since training"):
        evaluate(run)


def test_two_plugins_never_share_a_folder_and_no_name_needs_quoting():
    names = ["a.b:c", "a_b:c", "a:b_c", "a.b_c:d", "a.b:c_d", "tvconv:c"]
    slugs = [settings(f"model.op={name}").operator for name in names]
    slugs += [settings(f"train.loss={name}").recipe(all_domains="ABCD") for name in names]
    assert len({slug.lower() for slug in slugs}) == len(slugs)
    assert all(re.fullmatch(r"[\w.=-]+", slug) for slug in slugs)


@pytest.mark.parametrize(
    ("setting", "kind", "near"),
    [
        ("model.op=tvcnov", "operator", "tvconv"),
        ("train.loss=bec", "loss", "bce"),
        ("train.augment=scalecrop", "augmentation", "scale-crop"),
        ("train.method=mixstile", "method", "mixstyle"),
        ("train.method=mix.style", "method", "mixstyle"),
    ],
)
def test_an_unknown_name_offers_the_nearest_and_the_form_of_a_plugin(setting, kind, near):
    name = re.escape(setting.split("=")[1])
    with pytest.raises(UsageError, match=rf"unknown {kind} '{name}': did you mean '{near}'\?.*package\.module:factory"):
        settings(setting)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "nowhere:block", r"nowhere:block: no module 'nowhere' in \S+here or on the Python path; start in"),
        ("", "broken.inner:block", r"no module 'broken.inner'"),
        (
            "def block(): ...",
            "broken:blok",
            r"unknown factory 'blok': did you mean 'block'\? \(valid: block\) in \S+\.py",
        ),
        ("block = 3", "broken:block", r"unknown factory 'block' \(valid: \)"),
        ("import nowhere", "broken:block", r"raises ModuleNotFoundError at \S+broken\.py:1: No module named 'nowhere'"),
        ("x = 1\n1 / 0", "broken:block", r"importing broken raises ZeroDivisionError at \S+broken\.py:2: division by"),
        ("def (", "broken:block", r"importing broken raises SyntaxError .*broken\.py, line 1"),
        ("", "sys:exit", r"sys has no file whose digest"),
        ("", "tvconv", r"'tvconv' is not the name of a plugin: write it as package\.module:factory"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_told_in_one_line(text, name, message, here):
    (here / "broken.py").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        plugins.load(name)
    assert "\n" not in str(caught.value)


def test_what_gives_the_wrong_thing_is_told(here):
    (here / "odd.py").write_text(
        "def loss(logits, masks): return logits.mean()\n"
        "def augment(size, seed): return lambda image, masks: (image / 255, masks)\n"
        "def method(): return 3\n"
        "def number(logits, masks): return 0.5\n"
    )
    logits = torch.zeros(2, 2, 4, 4)
    with pytest.raises(UsageError, match=r"odd:loss: gives losses \(\): return one per structure, \(2,\)"):
        task.find_loss("odd:loss")(logits, logits)
    with pytest.raises(UsageError, match=r"odd:number: gives float: return one per structure, \(2,\)"):
        task.find_loss("odd:number")(logits, logits)
    pair = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(UsageError, match=r"odd:augment: gives \(4, 4, 3\) float64 and \(2, 4, 4\) uint8: return"):
        transforms.augmentation("odd:augment", 4, seed=0)(*pair)
    with pytest.raises(UsageError, match="odd:method: gives int: return an instance"):
        methods.build_method("odd:method")


def test_a_method_that_gives_no_loss_per_structure_is_told(here, draw_root, tmp_path):
    (here / "odd.py").write_text(
        "from fundus_seg.training import Method\n"
        "class Sum(Method):\n"
        "    def loss(self, loss_of, logits, masks, domains, step):\n"
        "        return loss_of(logits, masks).sum()\n"
    )
    with pytest.raises(UsageError, match=r"^odd:Sum: gives losses \(\): return one per structure, \(2,\)$"):
        train(settings("train.method=odd:Sum"), open_root(draw_root()), tmp_path)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("lambda i, o, rate, s: nn.Conv2d(i, o, 3)", r"a branch makes \(1, 8, 2, 2\) of .* return \(1, 8, 4, 4\)$"),
        ("lambda i, o, rate, s: nn.Conv2d(o, i, 1)", r"raises RuntimeError at \S+: Given groups=1"),
        (
            "lambda i, o, rate, s: s.rate",
            r"raises AttributeError at \S+odd\.py:2: 'BranchSettings' object has no attribute 'rate'",
        ),
        ("lambda i, o: nn.Conv2d(i, o, 1)", rf"takes \(i, o\): {FORM}"),
        ("lambda s: lambda i, o, rate: nn.Conv2d(i, o, 1)", rf"takes \(s\): {FORM}"),
        ("lambda *s: lambda i, o, rate: nn.Conv2d(i, o, 1)", f"returns function: {FORM}"),
        ("lambda i, o, rate, s: 3", f"returns int: {FORM}"),
    ],
)
def test_an_operator_that_cannot_be_used_is_refused_when_it_is_built(here, factory, message):
    (here / "odd.py").write_text(f"from torch import nn\nblock = {factory}\n")
    with pytest.raises(UsageError, match=f"^odd:block: {message}") as caught:
        build_model("odd:block", encoder="tu-mobilenetv2_035", image_size=64, aspp_channels=8)
    assert "\n" not in str(caught.value)


def test_trying_an_operator_draws_nothing_and_leaves_it_as_it_was(here):
    (here / "odd.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Noisy(nn.Conv2d):\n"
        "    def forward(self, x): return super().forward(x + torch.rand(()))\n"
        "def block(i, o, rate, settings): return nn.Sequential(Noisy(i, o, 1), nn.BatchNorm2d(o))\n"
    )
    settings = BranchSettings((4, 4), 6, 8)
    operator = plugins.load("odd:block").factory
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain, ours = operator(3, 8, 6, settings), torch.rand(3)
        torch.manual_seed(0)
        module, theirs = tried("odd:block", operator, 3, 8, 6, settings), torch.rand(3)
    assert torch.equal(ours, theirs)
    assert module.training
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in module.state_dict().items())


def test_an_idea_that_cannot_be_loaded_leaves_no_run(draw_root, tmp_path):
    with pytest.raises(UsageError, match="no module 'nowhere'"):
        train(settings("train.method=nowhere:idea"), open_root(draw_root()), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


class TestIdeasThatRaise:
    """Whatever a plugin's code raises, and wherever it is called, is one line with its file and line."""

    @pytest.mark.parametrize(
        ("setting", "code"),
        [
            ("train.augment", "def idea(size, seed): return 1 / 0"),
            ("train.augment", "def idea(size, seed): return lambda image, masks: 1 / 0"),
            ("train.loss", "def idea(logits, masks): return 1 / 0"),
            ("train.method", "def idea(): return 1 / 0"),
            ("train.method", "class idea(Method):\n    def attach(self, network): 1 / 0"),
            ("train.method", "class idea(Method):\n    def batch(self, *_): 1 / 0"),
            ("train.method", "class idea(Method):\n    def loss(self, *_): 1 / 0"),
            ("model.op", "def idea(i, o, rate, settings): return 1 / 0"),
        ],
    )
    def test_and_the_mended_one_runs(self, here, monkeypatch, draw_root, tmp_path, setting, code):
        root, out = open_root(draw_root()), tmp_path / "runs"
        (here / "odd.py").write_text(f"from fundus_seg.training import Method\n{code}\n")
        asked = settings("train.epochs=1", f"{setting}=odd:idea")
        line = code.count("\n") + 2
        with pytest.raises(UsageError, match=rf"^odd:idea: raises ZeroDivisionError at \S+odd\.py:{line}: ") as caught:
            train(asked, root, out)
        assert "\n" not in str(caught.value)
        (here / "odd.py").write_text(MENDED[setting])
        forget(monkeypatch)
        assert train(asked, root, out).has("TRAINED")

    def test_a_run_that_trained_an_epoch_keeps_to_its_plugin(self, here, monkeypatch, draw_root, tmp_path):
        root, out = open_root(draw_root()), tmp_path / "runs"
        (here / "odd.py").write_text(MENDED["train.loss"])
        asked = settings("train.epochs=2", "train.loss=odd:idea")
        with killed_in_epoch(2):
            train(asked, root, out)
        (here / "odd.py").write_text(MENDED["train.loss"] + "# changed\n")
        forget(monkeypatch)
        with pytest.raises(RunError, match="holds another run"):
            train(asked, root, out)


MENDED = {
    "train.augment": "def idea(size, seed): return lambda image, masks: (image, masks)\n",
    "train.loss": "from fundus_seg.training.task import binary_cross_entropy as idea\n",
    "train.method": "from fundus_seg.training import Method as idea\n",
    "model.op": "from fundus_seg.models.operators import depthwise_block as idea\n",
}


def test_a_file_beside_one_s_plugin_takes_no_library_s_place(here):
    (here / "colorsys.py").write_text("1 / 0")
    (here / "odd.py").write_text("import colorsys\ndef idea(): ...\n")
    sys.modules.pop("colorsys", None)
    assert plugins.load("odd:idea").factory.__module__ == "odd"
