from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fundus_seg.config import RunConfig, load_config, preset_names, preset_settings
from fundus_seg.errors import ConfigError, UsageError


def test_defaults_are_the_paper():
    config = load_config("paper", arguments={"holdout": "A"})
    assert config == RunConfig(holdout="A")
    assert (config.data.size, config.train.batch_per_domain, config.train.epochs) == (256, 16, 40)
    assert (config.optim.lr, config.optim.betas, config.scoring.threshold) == (1e-3, (0.9, 0.99), 0.75)
    assert config.train.selection == "source-validation"


def test_every_preset_is_valid_and_holds_only_differences():
    paper = preset_settings("paper", holdout="A").model_dump()
    for name in preset_names():
        own = preset_settings(name, holdout="A").model_dump()
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


def test_learning_rate_drops_at_the_start_of_an_epoch():
    optim = load_config("paper", arguments={"holdout": "A"}).optim
    assert optim.lr_at(29) == 1e-3
    assert optim.lr_at(30) == pytest.approx(2e-4)


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
    ],
)
def test_wrong_override_is_a_usage_error(override, message):
    with pytest.raises(UsageError, match=message):
        load_config("paper", overrides=[override], arguments={"holdout": "A"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lrr: 1}", r"mine.yaml: unknown setting 'optim.lrr': did you mean 'optim.lr'\?"),
        ("holdout: A\noptim: {lr: none}", "mine.yaml: optim.lr: input should be a valid number"),
        ("- 1", "mine.yaml: holds list, not settings"),
        ("a: [", "mine.yaml: not valid YAML"),
    ],
)
def test_wrong_file_is_named(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(file), arguments={"holdout": "A"})


def test_unknown_preset_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        load_config("papr", arguments={"holdout": "A"})


def test_missing_holdout_is_a_usage_error():
    with pytest.raises(UsageError, match="--holdout"):
        load_config("paper")


def test_slug_names_what_differs_and_nothing_else():
    plain = load_config("paper", arguments={"holdout": "A", "model.op": "conv", "seed": 3})
    assert plain.slug(all_domains="ABCD") == "conv"
    spelt_out = load_config("paper", overrides=["data.sources=[B, C, D]"], arguments={"holdout": "A"})
    assert spelt_out.slug(all_domains="ABCD") == "tvconv"
    varied = load_config(
        "paper", overrides=["optim.lr=3e-4", "data.sources=[C]", "model.encoder_weights=/x/w.pt"],
        arguments={"holdout": "A"},
    )  # fmt: skip
    assert varied.differences(all_domains="ABCD").keys() == {"optim.lr", "domains", "model.encoder_weights"}
    assert varied.slug(all_domains="ABCD").startswith("tvconv-domains=A+C-encoder_weights=w.pt-lr=0.0003-")
    other = load_config(
        "paper", overrides=["optim.lr=3e-4", "data.sources=[C]", "model.encoder_weights=/y/w.pt"],
        arguments={"holdout": "A"},
    )  # fmt: skip
    assert other.slug(all_domains="ABCD") != varied.slug(all_domains="ABCD")


def test_every_holdout_of_one_experiment_has_one_slug():
    slugs = {
        load_config("paper", overrides=[f"data.sources=[{source}]"], arguments={"holdout": holdout}).slug(
            all_domains="ABCD"
        )
        for holdout, source in ("AC", "CA")
    }
    assert len(slugs) == 1


def test_scoring_is_no_part_of_the_recipe_but_for_the_threshold_that_selects():
    def slug(*overrides):
        return load_config("paper", overrides=overrides, arguments={"holdout": "A"}).slug(all_domains="ABCD")

    assert slug("scoring.empty_check=cup", "scoring.dice_smoothing=1") == "tvconv"
    assert slug("scoring.threshold=0.5").startswith("tvconv-threshold=0.5-")


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config("paper", arguments={"holdout": "A"}).seed = 1  # type: ignore[misc]
