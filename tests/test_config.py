from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fundus_seg import yaml_lines
from fundus_seg.builtins import Selection
from fundus_seg.config import (
    MachineSettings,
    PlannedRun,
    ResolvedRun,
    ResolvedTrain,
    RunConfig,
    TrainConfig,
    load_config,
    load_recipe,
    load_recorded,
    load_scoring,
    preset_names,
    recorded_provenance,
    resolve_machine,
    resolve_sources,
)
from fundus_seg.config.settings import BeforeItExisted, shipped_preset
from fundus_seg.errors import ConfigError, RunError, UsageError
from fundus_seg.protocol import SELECTIONS, Scoring
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import identity_of
from fundus_seg.runs.record import record, take_up

NO_INTEGERS = ("1_0", "'2'", "2.0", "1e1", "true", "1:30", "0b11", "two")
RECORD = Path(__file__).with_name("config-0.1.0.yaml")
"""What version 0.1.0 wrote: tvconv, holdout B, lr 3e-4, MixStyle, on the phantom."""
MACHINE = MachineSettings(threads=3, precision="bf16", channels_last=True)


def test_defaults_are_the_paper():
    config = load_config("paper", arguments={"holdout": "A"})
    assert config == RunConfig(holdout="A")
    assert (config.data.size, config.train.batch_per_domain, config.train.epochs) == (256, 16, 40)
    assert (config.optim.lr, config.optim.betas, config.scoring.threshold) == (1e-3, (0.9, 0.99), 0.75)
    assert config.train.selection == "source-validation"


def test_every_preset_is_valid_and_holds_only_differences():
    paper = load_recipe("paper").model_dump()
    for name in preset_names():
        own = load_recipe(name).model_dump()
        assert own == shipped_preset(name).model_dump()
        written = yaml.safe_load(Path(__file__).parents[1].joinpath("configs", f"{name}.yaml").read_text())
        for section, settings in written.items():
            for key in settings:
                assert own[section][key] != paper[section][key], f"{name}: {section}.{key} is the default"


def test_released_code_leaks_on_purpose():
    config = load_config("released-code", arguments={"holdout": "A"})
    assert (config.train.selection, config.train.sampling, config.train.augment) == (
        "oracle",
        "replacement",
        "scale-crop",
    )
    assert (config.scoring.dice_smoothing, config.scoring.empty_check) == (1, "cup")


def optim_of(*overrides):
    return load_config("paper", overrides=[f"optim.{each}" for each in overrides], arguments={"holdout": "A"}).optim


def test_learning_rate_drops_at_the_start_of_an_epoch():
    assert optim_of().lr_at(30 * 7 - 1, steps=7, epochs=40) == 1e-3
    assert optim_of().lr_at(30 * 7, steps=7, epochs=40) == pytest.approx(2e-4)


def test_a_cosine_falls_to_nothing_over_the_run():
    optim = optim_of("schedule=cosine", "lr=0.5")
    rates = [optim.lr_at(step, steps=2, epochs=3) for step in range(7)]
    halves = [2, 1 + 3**0.5 / 2, 1.5, 1, 0.5, 1 - 3**0.5 / 2, 0]  # 1 + cos(pi step / 6)
    assert rates == pytest.approx([0.25 * each for each in halves])


def test_a_warm_up_rises_step_by_step_to_the_schedule():
    optim = optim_of("warmup=1.5", "lr=6", "drop_epochs=[2]", "drop_factor=2")
    rates = [optim.lr_at(step, steps=2, epochs=3) for step in range(6)]
    assert rates == pytest.approx([2, 4, 6, 6, 3, 3])
    cosine = optim_of("warmup=1", "lr=1", "schedule=cosine")
    assert cosine.lr_at(0, steps=4, epochs=2) == pytest.approx(1 / 4)
    assert cosine.lr_at(1, steps=4, epochs=2) == pytest.approx(
        2 / 4 * (1 + 0.5**0.5 * (1 + 0.5**0.5) ** 0.5) / 2, abs=0.02
    )


def test_drops_with_a_cosine_are_refused_where_they_are_not_the_preset_s(tmp_path):
    message = r"optim.drop_epochs \[5\] with optim.schedule cosine: a cosine has no drops; leave one"
    with pytest.raises(UsageError, match=message):
        optim_of("schedule=cosine", "drop_epochs=[5]")
    for preset in ("paper", "demo"):
        config = load_config(preset, overrides=["optim.schedule=cosine"], arguments={"holdout": "A"})
        assert config.recipe(all_domains="ABCD").startswith("schedule=cosine-")
    assert optim_of("schedule=cosine", "drop_epochs=[]").drop_epochs == ()


def test_an_average_by_the_validation_dice_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match=r"train.average swad with train.selection last: .*take another of the two"):
        load_config("tiny", overrides=["train.average=swad", "train.selection=last"], arguments={"holdout": "A"})


def test_precedence_is_preset_file_set_option(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: tiny\nholdout: B\noptim: {lr: 0.5}\ntrain: {epochs: 7}\n")
    assert load_config(str(file)).optim.lr == 0.5
    config = load_config(str(file), overrides=["optim.lr=3e-4"], arguments={"holdout": "C", "seed": None})
    assert (config.holdout, config.optim.lr, config.train.epochs, config.data.size) == ("C", 3e-4, 7, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"unknown setting 'optim.lrr': did you mean 'optim.lr'\?"),
        ("optmi.lr=1", r"unknown setting 'optmi': did you mean 'optim'\?"),
        ("optim.epochs=1", "there is train.epochs"),
        ("optim=1", "optim is a section: write optim.lr"),
        ("optim.lr", "write it as section.key=value"),
        ("optim.lr=-1", "optim.lr: input should be greater than 0"),
        ("optim.lr={", "not valid YAML"),
        ("data.size=100", "data.size: input should be a multiple of 16"),
        ("model.op=tvcnov", r"unknown operator 'tvcnov': did you mean 'tvconv'\?"),
        ("train.selection=best", "train.selection: input should be 'source-validation', 'last' or 'oracle'"),
        *((f"train.epochs={text}", "train.epochs: input should be a valid integer") for text in NO_INTEGERS),
        *((f"optim.lr={text}", "optim.lr: input should be a valid number") for text in ("'1e-3'", "1_0.5", "true")),
        *((f"scoring.fill_holes={text}", "scoring.fill_holes: must be true or false") for text in ("yes", "1", "on")),
        ("optim.betas=['0.5', 0.9]", "optim.betas.0: input should be a valid number"),
        ("optim.drop_epochs=3", r"optim.drop_epochs: must be a list, as \[1, 2\]"),
    ],
)
def test_wrong_override_is_a_usage_error(override, message):
    with pytest.raises(UsageError, match=message):
        load_config("paper", overrides=[override], arguments={"holdout": "A"})


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{' ' * depth}a:" for depth in range(1400)),
        "- " * 100_000,
        "-\t" * 100_000,
        "? " * 100_000,
        "[" * 100_000,
        "{a: " * 100_000,
        "a: " * 100_000,
    ],
    ids=["mappings", "lists", "tabs", "keys", "flow-lists", "flow-mappings", "values"],
)
def test_a_document_that_is_nested_too_deep_is_refused(text):
    with pytest.raises(yaml_lines.YamlError):
        yaml_lines.read(text)


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("0o10", 8), ("0x10", 16), ("+3", 3)])
def test_numbers_of_yaml_1_2_are_taken(text, number):
    config = load_config("tiny", overrides=[f"train.epochs={text}"], arguments={"holdout": "A"})
    assert config.train.epochs == number


_WORDS = (
    "0o10 08 010 1_0 on off yes no 1:30 1e3 12e4567 0x1F 0b11 2026-11-26 .inf -.INF .nan ~ null << = true 1. .5 +1 "
    "-1e-3 --- ... # : - ? ! & * | > % @ ` \u00e9 e\u0301 \u2028 \x85 \ufeff \U0001f441 \udce9 \x1b[0m"
)
_TEXTS = st.one_of(
    st.sampled_from(_WORDS.split(" ")),
    st.text(max_size=120),
    st.text("0123456789+-._eExXoOabcdef: ~\n\t#'\"\\,[]{}", max_size=40),
    st.binary(max_size=120).map(os.fsdecode),
)
_LEAVES = _TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
_TREES = st.recursive(_LEAVES, lambda below: st.lists(below) | st.dictionaries(_TEXTS, below), max_leaves=20)


def _typed(tree):
    """The tree with the type of each leaf, since 1, 1.0 and True are equal."""
    if isinstance(tree, dict):
        return {key: _typed(value) for key, value in tree.items()}
    return [_typed(each) for each in tree] if isinstance(tree, list) else (type(tree), tree)


@given(_TREES)
def test_what_is_written_is_read_back(tree):
    text = yaml_lines.write(tree)
    text.encode("utf8")
    assert _typed(yaml_lines.read(text)) == _typed(tree)
    assert _typed(yaml.safe_load(text)) == _typed(tree)  # a reader of YAML 1.1


@pytest.mark.parametrize("name", ["0o10", "08", "1_0", "on", "1e3", "0x10", "two  spaces", "\u2028"])
def test_names_that_look_like_numbers_stay_names_in_a_run_s_record(tmp_path, name):
    run = RunFolder(tmp_path)
    content = yaml.safe_load(RECORD.read_text()) | {"holdout": name, "inputs": {f"{name}/test": name}}
    content["provenance"]["data_root"] = name
    run.write_config(content)
    assert run.read_config() == content
    assert load_recorded(run.config, ResolvedRun).holdout == name
    assert recorded_provenance(str(tmp_path))["data_root"] == name


@pytest.mark.parametrize("digest", ["1234567e89012345", "0899999999999999", "0o12345670123456"])
def test_digests_that_older_versions_did_not_quote_stay_texts(tmp_path, digest):
    run = RunFolder(tmp_path)
    written = RECORD.read_text()
    run.config.write_text(written.replace(yaml.safe_load(written)["inputs"]["A/train"], digest))
    assert run.read_config()["inputs"]["A/train"] == digest


def refused(*arguments, **options):
    """The lines of the UsageError or ConfigError, without those that head or indent them."""
    with pytest.raises((UsageError, ConfigError)) as caught:
        load_config(*arguments, **options)
    lines = str(caught.value).splitlines()
    return type(caught.value), [line.strip() for line in lines[len(lines) > 1 :]]


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("optim: {lrr: 1}", r"mine.yaml:1: unknown setting 'optim.lrr': did you mean 'optim.lr'\?"),
            ("holdout: A\noptim: {lr: none}", "mine.yaml:2: optim.lr: input should be a valid number"),
            ("holdout: A\n\nholdout: B", "mine.yaml:3: holdout: stands here a second time"),
            ("optim:\n  lr: 1\n  lr: 1", "mine.yaml:3: optim.lr: stands here a second time"),
            ("seed: 1\npreset: tinny", r"mine.yaml:2: unknown preset 'tinny': did you mean 'tiny'\?"),
            ("preset: [tiny]", "mine.yaml:1: preset: input should be a valid string"),
            ("optim: 3", "mine.yaml:1: optim is a section: write optim.lr"),
            ("optim: {lr: 2026-99-99}", "mine.yaml:1: optim.lr: input should be a valid number"),
            ("data: {mask_interpolation: lanczos}", "mine.yaml:1: data.mask_interpolation: is always nearest"),
            ("train:\n  devices: 3", "mine.yaml:2: train.batch_per_domain 16 with train.devices 3: .*multiple of 3"),
            (
                "train: {norms: renewed, devices: 2}",
                "mine.yaml:1: train.norms renewed with train.devices 2: each device",
            ),
            ("train: {method: vrex, devices: 2}", "mine.yaml:1: train.method vrex with train.devices 2: a method sees"),
            ("seed: 1\n<<: 3", "mine.yaml:2: not valid YAML: expected a mapping"),
            ("- 1", "mine.yaml: holds no settings"),
            ("a: 1\nb: [", "mine.yaml:2: not valid YAML"),
        ],
    )
    def test_of_a_file_name_it_and_the_line(self, tmp_path, text, message):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(str(file), arguments={"holdout": "A"})

    def test_of_a_file_are_told_at_once_in_its_order(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text(
            "preset: tiny\noptim:\n  lr: -1\n  lrr: 3\n"
            "train: {epochs: 7, epochs: 8}\ndata: 3\nscoring: {threshold: 2}\n"
        )
        error, lines = refused(str(file))
        assert error is ConfigError
        assert [line.removeprefix(f"config {file}:").partition(": ")[0] for line in lines] == list("34567")

    def test_of_arguments_are_told_at_once(self):
        error, lines = refused(
            "tiny",
            overrides=["optim.lrr=3", "optim.lr", "optim.lr={", "preset=a", "optim=1", "optim.betas=[0, 2]"],
            arguments={"model.op": "tvcnov", "holdout": "A"},
        )
        assert error is UsageError
        told = [
            "unknown setting 'optim.lrr'",
            "optim.lr: ",
            "optim.lr={: ",
            "preset=a: ",
            "optim is a section",
            "model.op: ",
        ]
        assert all(line.startswith(start) for line, start in zip(lines, [*told, "optim.betas"], strict=True))

    def test_of_a_file_come_before_those_of_arguments(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("optim: {lr: -1}")
        assert refused(str(file), overrides=["optim.lr=1", "x=1"])[0] is ConfigError

    def test_of_settings_together_are_of_whoever_gives_the_last(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("train: {devices: 3}")
        assert load_config(str(file), overrides=["train.batch_per_domain=6"], arguments={"holdout": "A"})
        error, (line,) = refused(str(file), overrides=["train.batch_per_domain=4"], arguments={"holdout": "A"})
        assert error is UsageError
        assert line.startswith("train.batch_per_domain 4 with train.devices 3")

    def test_long_values_are_cut(self, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\noptim: {lr: &c [*b, *b, *b, *b]}\nholdout: [*c]")
        assert all(len(line) < 500 for line in refused(str(file))[1])

    @pytest.mark.parametrize(
        ("arguments", "override"),
        [
            ({"holdout": "A"}, "holdout=B"),
            ({"holdout": "A", "model.op": "conv"}, "model.op=tvconv"),
            ({"holdout": "A", "seed": 1}, "seed=2"),
        ],
    )
    def test_an_option_and_an_override_of_one_setting_are_refused_if_they_differ(self, arguments, override):
        key = override.partition("=")[0]
        error, (line,) = refused("tiny", overrides=[override], arguments=arguments)
        assert error is UsageError
        assert line == f"{override} with --{key.rpartition('.')[2]} {arguments[key]}: give it once"
        same = f"{key}={arguments[key]}"
        assert load_config("tiny", overrides=[same], arguments=arguments) == load_config("tiny", arguments=arguments)


def test_numbers_in_files_and_overrides_may_have_exponents(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {lr: 1e-4}")
    assert load_config(str(file), arguments={"holdout": "A"}).optim.lr == 1e-4
    assert load_config(overrides=["optim.lr=2E-4"], arguments={"holdout": "A"}).optim.lr == 2e-4


def test_merged_mappings_are_read(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim: &own {lr: 0.5}\n")
    assert load_recipe(str(file)).optim.lr == 0.5
    file.write_text(
        "<<: {seed: 1}\nseed: 2\ndata: {size: 64}\nscoring: {<<: {threshold: 0.5, fill_holes: false}, threshold: 0.6}\n"
    )
    assert load_scoring(str(file)) == Scoring(threshold=0.6, fill_holes=False)


def test_a_recipe_and_a_protocol_need_no_holdout(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: released-code\nholdout: A\nscoring: {threshold: 0.5}\n")
    assert load_recipe(str(file)).train.selection == "oracle"
    assert load_scoring(str(file)) == Scoring(threshold=0.5, dice_smoothing=1, empty_check="cup")
    assert load_scoring("paper") == Scoring()
    assert load_scoring(str(RECORD)) == Scoring()
    with pytest.raises(UsageError, match=r"unknown setting 'holdout'"):
        load_recipe("tiny", overrides=["holdout=A"])


def planned(*overrides):
    return resolve_sources(
        load_config("tiny", overrides=overrides, arguments={"holdout": "A"}), "ABCD", where=Path("data")
    )


class TestResolution:
    def test_sources_are_the_other_domains_of_the_data_root(self):
        assert planned().data.sources == ("B", "C", "D")
        assert planned("data.sources=[D]").data.sources == ("D",)
        assert resolve_sources(planned(), "ABCD", where=Path()) == planned()

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["data.sources=[B, X]"], "unknown domain 'X'.* in data"),
            (["data.sources=[A, B]"], "the holdout never trains"),
            (["data.sources=[B, B]"], "each once"),
            (["data.sources=[]"], "name one or more other domains"),
            (["data.sources=[B]", "train.batch_per_domain=1"], "batch norms need two or more cases"),
            (["data.sources=[B]", "train.devices=2"], "batch norms need two or more cases"),
        ],
    )
    def test_wrong_domains_are_refused(self, overrides, message):
        with pytest.raises(UsageError, match=message):
            planned(*overrides)

    def test_the_machine_decides_what_neither_the_settings_nor_the_record_do(self):
        new = resolve_machine(planned("train.precision=fp32"), MACHINE)
        assert (new.train.threads, new.train.precision, new.train.channels_last) == (3, "fp32", True)
        assert resolve_machine(planned(), new.train) == new
        again = resolve_machine(planned("train.threads=2"), new.train)
        assert (again.train.threads, again.train.precision) == (2, "fp32")

    def test_nothing_is_left_open_in_what_a_run_records(self):
        with pytest.raises(ValueError, match=r"train\.threads"):
            ResolvedRun.model_validate(planned().model_dump())
        assert resolve_machine(planned(), MACHINE).model_dump().keys() == RunConfig.model_fields.keys()


class TestRecord:
    """A run's config.yaml, of 0.1.0 or of before a setting existed."""

    def test_of_0_1_0_is_read(self):
        recorded = load_recorded(RECORD, ResolvedRun)
        assert (recorded.holdout, recorded.optim.lr, recorded.train.method) == ("B", 3e-4, "mixstyle")
        assert recorded.data.sources == ("A", "C", "D")
        assert recorded.recipe(all_domains="ABCD") == "lr=0.0003-method=mixstyle-bd27210d"

    def test_repeats_its_run(self, tmp_path):
        recorded = load_recorded(RECORD, ResolvedRun)
        repeated = resolve_sources(load_config(str(RECORD)), "ABCD", where=Path())
        assert resolve_machine(repeated, MACHINE) == recorded
        assert recorded_provenance(str(RECORD))["data_root"] == "phantom"
        assert recorded_provenance("tiny") == {}
        (tmp_path / "config.yaml").write_bytes(RECORD.read_bytes())
        assert load_config(str(tmp_path)) == load_config(str(RECORD))

    def test_of_before_a_setting_existed_has_its_value_of_then(self, tmp_path):
        content = yaml.safe_load(RECORD.read_text())
        for setting in ("precision", "channels_last", "method", "devices"):
            del content["train"][setting]
        assert not {"average", "ema_decay", "swad_r"} & content["train"].keys()
        assert not {"schedule", "warmup", "weight_decay"} & content["optim"].keys()
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        train = load_recorded(file, ResolvedRun).train
        assert (train.precision, train.channels_last, train.method, train.devices) == ("fp32", False, "none", 1)
        assert load_config(str(file)).train.precision == "fp32"
        assert (train.average, load_recorded(file, ResolvedRun).optim.schedule) == ("none", "step")

    def test_that_lacks_a_setting_is_named(self, tmp_path):
        content = yaml.safe_load(RECORD.read_text())
        content["data"]["sources"] = None
        del content["train"]["threads"]
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match=r"config\.yaml:\d+: data\.sources: must be a list"):
            load_recorded(file, ResolvedRun)
        content["data"]["sources"] = ["A"]
        file.write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match=r"config\.yaml: train\.threads: missing"):
            load_recorded(file, ResolvedRun)

    def test_of_a_run_is_of_the_same_run_after_a_setting_is_added(self, tmp_path, monkeypatch):
        folder, inputs = RunFolder(tmp_path), {"A/test": "1"}
        resolved = resolve_machine(planned(), MACHINE)
        record(
            folder,
            resolved,
            inputs,
            identity=identity_of(resolved, "ABCD"),
            data_root="",
            phantom=False,
            probed=False,
            gpu=None,
        )

        folder.checkpoint("last").parent.mkdir()
        folder.checkpoint("last").touch()  # the run is begun

        class LaterTrain(TrainConfig):
            warmup: Annotated[int, BeforeItExisted(0)] = 5

        class LaterPlan(PlannedRun):
            train: LaterTrain

        class LaterResolvedTrain(ResolvedTrain, LaterTrain):
            pass

        class LaterRun(LaterPlan):
            train: LaterResolvedTrain

        def begin(warmup):
            plan = LaterPlan.model_validate({**tiny, "train": {**tiny["train"], "warmup": warmup}})
            return take_up(folder, plan, inputs, probed=False, machine=lambda: MACHINE)

        tiny = planned().model_dump()
        monkeypatch.setattr("fundus_seg.runs.record.ResolvedRun", LaterRun)
        monkeypatch.setattr("fundus_seg.config.resolve.ResolvedRun", LaterRun)
        assert begin(warmup=0).train.warmup == 0
        with pytest.raises(RunError, match=r"holds another run \(train\.warmup: 0 there, 5 now\)"):
            begin(warmup=5)


def test_every_selection_is_in_the_table():
    assert tuple(SELECTIONS) == get_args(Selection)
    assert [name for name, rule in SELECTIONS.items() if rule.warning] == ["oracle"]


def test_unknown_preset_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        load_config("papr", arguments={"holdout": "A"})


def test_missing_holdout_is_a_usage_error():
    with pytest.raises(UsageError, match="--holdout"):
        load_config("paper")


def test_a_recipe_names_what_differs_and_nothing_else():
    plain = load_config("paper", arguments={"holdout": "A", "model.op": "conv", "seed": 3})
    assert (plain.operator, plain.recipe(all_domains="ABCD")) == ("conv", "")
    spelt_out = load_config("paper", overrides=["data.sources=[B, C, D]"], arguments={"holdout": "A"})
    assert spelt_out.recipe(all_domains="ABCD") == ""
    varied = load_config(
        "paper", overrides=["optim.lr=3e-4", "data.sources=[C]", "model.encoder_weights=/x/w.pt"],
        arguments={"holdout": "A"},
    )  # fmt: skip
    assert varied.differences(all_domains="ABCD").keys() == {"optim.lr", "domains", "model.encoder_weights"}
    assert varied.recipe(all_domains="ABCD").startswith("domains=A+C-encoder_weights=w.pt-lr=0.0003-")
    other = load_config(
        "paper", overrides=["optim.lr=3e-4", "data.sources=[C]", "model.encoder_weights=/y/w.pt"],
        arguments={"holdout": "A"},
    )  # fmt: skip
    assert other.recipe(all_domains="ABCD") != varied.recipe(all_domains="ABCD")


def test_every_holdout_of_one_experiment_has_one_recipe():
    recipes = {
        load_config("paper", overrides=[f"data.sources=[{source}]"], arguments={"holdout": holdout}).recipe(
            all_domains="ABCD"
        )
        for holdout, source in ("AC", "CA")
    }
    assert len(recipes) == 1


def test_scoring_is_no_part_of_the_recipe_but_for_the_threshold_that_selects():
    def recipe(*overrides):
        return load_config("paper", overrides=overrides, arguments={"holdout": "A"}).recipe(all_domains="ABCD")

    assert recipe("scoring.empty_check=cup", "scoring.dice_smoothing=1") == ""
    assert recipe("scoring.threshold=0.5").startswith("threshold=0.5-")


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config("paper", arguments={"holdout": "A"}).seed = 1  # type: ignore[misc]
