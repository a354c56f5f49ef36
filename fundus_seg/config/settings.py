"""Settings of a run: frozen, typed, read from presets, YAML files and `--set` in that order.

`RunConfig` is the recipe (everything that trains) with the scoring that its evaluation uses by default. Its defaults
are the `paper` preset. Field comments say what is not obvious from a name.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fundus_seg.digests import short_hash
from fundus_seg.errors import ConfigError, FundusSegError, UsageError, unknown_name
from fundus_seg.plugins import check_name, is_plugin
from fundus_seg.protocol import Scoring

OPERATORS = ("conv", "depthwise", "tvconv", "depthwise-dilated", "depthwise-wide", "untied", "linear", "coordconv")
"""The keys of `fundus_seg.models.OPERATORS`, known here without importing torch; a table's columns in this order."""
LOSSES = ("bce",)
"""The keys of `fundus_seg.training.task.LOSSES`."""
AUGMENTATIONS = ("none", "scale-crop")
"""The keys of `fundus_seg.data.transforms.AUGMENTATIONS`."""
METHODS = ("none", "mixstyle", "fourier", "vrex")
"""The keys of `fundus_seg.training.methods.METHODS`."""
PLUGIN_SETTINGS = ("model.op", "train.loss", "train.augment", "train.method")
"""That take `package.module:factory` in place of a built-in name."""
RUN_FILE_KEYS = ("format", "identity", "inputs", "provenance")
"""What a run's config.yaml holds beside its settings."""

MACHINE_SETTINGS = ("train.threads", "train.precision", "train.channels_last")
"""Left null, the machine decides them when a run begins: recorded in its settings, not part of its folder's name."""

_SELECTS = "scoring.threshold"


def _name(kind: str, builtin: Sequence[str]) -> AfterValidator:
    """Accepts a name of `builtin`, or one of the form package.module:factory, which is not imported here."""

    def check(name: str) -> str:
        try:
            return check_name(kind, name, builtin)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check)


Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """What the network sees."""

    size: Annotated[int, Field(ge=32, multiple_of=16)] = 256
    image_interpolation: Literal["lanczos", "bilinear"] = "lanczos"
    mask_interpolation: Literal["nearest"] = "nearest"
    sources: tuple[str, ...] | None = None
    """Training domains; null: every domain of the data root but the holdout."""


class ModelConfig(Section):
    """Which network."""

    op: Annotated[str, _name("operator", OPERATORS)] = "tvconv"
    encoder: str = "mobilenet_v2"
    encoder_weights: str = "imagenet"
    """`imagenet` (downloaded once by segmentation-models-pytorch), `none`, or the path of a state dict."""
    aspp_channels: Positive = 256
    expansion: Positive = 6
    generator_channels: Positive = 64


class OptimConfig(Section):
    """Adam, its learning rate divided by `drop_factor` at the start of each epoch in `drop_epochs`."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    drop_epochs: tuple[int, ...] = (30,)
    drop_factor: Annotated[float, Field(gt=0)] = 5.0

    def lr_at(self, epoch: int) -> float:
        """Learning rate during epoch `epoch`, counted from 0."""
        return self.lr / self.drop_factor ** sum(epoch >= drop for drop in self.drop_epochs)


class TrainConfig(Section):
    """How the data meets the network."""

    epochs: Positive = 40
    batch_per_domain: Positive = 16
    sampling: Literal["passes", "replacement"] = "passes"
    """Shuffled passes over each domain, smaller domains cycling; or independent draws."""
    steps_per_epoch: Positive | None = None
    """null: as many as one pass over the largest source domain takes."""
    loss: Annotated[str, _name("loss", LOSSES)] = "bce"
    augment: Annotated[str, _name("augmentation", AUGMENTATIONS)] = "none"
    method: Annotated[str, _name("method", METHODS)] = "none"
    """Of domain generalisation; none: the domains' cases together."""
    selection: Literal["source-validation", "last", "oracle"] = "source-validation"
    devices: Positive = 1
    """Processes, each on its own device, that share every batch. Batch norms see one slice each, so it is a recipe."""
    threads: Positive | None = None
    """CPU threads of the run; null: torch's own choice, recorded in the run's settings and kept when it resumes."""
    precision: Literal["fp32", "bf16"] | None = None
    """bf16: autocast, with weights in float32. null: bf16 where the machine has instructions for it, kept alike."""
    channels_last: bool | None = None
    """Memory layout of the network; null: true, kept alike."""


class RunConfig(Section):
    """Every setting of one run."""

    preset: str = "paper"
    holdout: str
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    scoring: Scoring = Scoring()

    def recipe(self) -> dict[str, Any]:
        """Everything that trains, as dotted settings: of the scoring the threshold alone, since it selects."""
        flat = flatten(self.model_dump(mode="json"))
        return {key: value for key, value in flat.items() if not key.startswith("scoring.") or key == _SELECTS}

    def network_spec(self) -> dict[str, Any]:
        """The arguments of `fundus_seg.models.build_model`, weights apart; a checkpoint's `model_spec`."""
        return {
            "op": self.model.op,
            "encoder": self.model.encoder,
            "image_size": self.data.size,
            "aspp_channels": self.model.aspp_channels,
            "expansion": self.model.expansion,
            "generator_channels": self.model.generator_channels,
        }

    def plugins(self) -> dict[str, str]:
        """The settings that name code from outside the package, by dotted setting."""
        recipe = self.recipe()
        return {setting: recipe[setting] for setting in PLUGIN_SETTINGS if is_plugin(recipe[setting])}

    def differences(self, *, all_domains: Iterable[str]) -> dict[str, Any]:
        """Settings of the recipe that differ from the preset's, without those that the run folder names or records.

        The domains of the experiment, sources and holdout together, stand under `domains` if they are not
        `all_domains`: every holdout of one experiment then has the same slug, and a table one column for it.
        """
        named = {"preset", "holdout", "seed", "model.op", "data.sources", *MACHINE_SETTINGS}
        standard = preset_settings(self.preset, holdout=self.holdout).recipe()
        differing = {key: value for key, value in self.recipe().items() if key not in named and value != standard[key]}
        domains = sorted({self.holdout, *(self.data.sources or all_domains)})
        return differing if domains == sorted(all_domains) else {**differing, "domains": domains}

    def slug(self, *, all_domains: Iterable[str]) -> str:
        """`op`, or `op-setting=value-...-hash` naming what differs from the preset; safe as a folder name.

        An operator `package.module:factory` is `package.module.factory`: no other's name, since a factory has no dot.
        """
        differing = self.differences(all_domains=all_domains)
        op = self.model.op.replace(":", ".")
        if not differing:
            return op
        parts = (f"{key.rsplit('.', 1)[-1]}={_readable(value)}" for key, value in sorted(differing.items()))
        return f"{op}-{'-'.join(parts)[:80]}-{short_hash(differing)}"


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = importlib.resources.files("fundus_seg.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_settings(name: str, **top: Any) -> RunConfig:
    """The preset `name` with top-level settings `top`, the holdout among them."""
    return _validated({**_read_preset(name), "preset": name, **top}, f"preset {name}", ConfigError)


def load_config(
    name_or_path: str = "paper", *, overrides: Sequence[str] = (), arguments: Mapping[str, Any] | None = None
) -> RunConfig:
    """Settings of a run.

    Args:
        name_or_path: a preset's name, or a YAML file that holds what differs from the preset it names under `preset`
            (default `paper`); a run's own config.yaml repeats that run.
        overrides: `section.key=value`, the value read as YAML.
        arguments: dotted settings given as options of their own; None means not given.

    Raises:
        ConfigError: an unreadable file, an unknown key or an invalid value in it.
        UsageError: an unknown preset, or a wrong override or argument.
    """
    settings, source = _read_settings(name_or_path)
    config_error = ConfigError if source.startswith("config") else UsageError
    _refuse_unknown_keys(settings, RunConfig, source, config_error)
    if "holdout" in settings:  # a file that is wrong by itself is reported as the file's fault
        _validated(settings, source, ConfigError)
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"--set {override}: write it as section.key=value")
        if key.strip() == "preset":
            raise UsageError(f"--set {override}: choose a preset with --config")
        given[key.strip()] = _parse_yaml(text, f"--set {override}", UsageError)
    changes: dict[str, Any] = {}
    for key, value in given.items():
        *sections, leaf = key.split(".")
        place = changes
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    _refuse_unknown_keys(changes, RunConfig, "--set", UsageError)
    merged = _merge(settings, changes)
    if "holdout" not in merged:
        raise UsageError("no holdout: name the unseen domain with --holdout A (or B, C, D)")
    return _validated(merged, "arguments" if given else source, UsageError if given else config_error)


def recorded_provenance(name_or_path: str) -> dict[str, Any]:
    """The provenance in a run's own config.yaml; empty for a preset or any other file."""
    path = Path(name_or_path)
    if not path.is_file():
        return {}
    content = _parse_yaml(path.read_text("utf8"), f"config {path}", ConfigError)
    recorded = content.get("provenance") if isinstance(content, dict) else None
    return recorded if isinstance(recorded, dict) else {}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise UsageError(unknown_name("preset", name, preset_names()) + "; or give the path of a YAML file")
    text = (importlib.resources.files("fundus_seg.configs") / f"{name}.yaml").read_text("utf8")
    return _parse_yaml(text, f"preset {name}", ConfigError) or {}


def _read_settings(name_or_path: str) -> tuple[dict[str, Any], str]:
    """Settings of a preset or a file laid over its preset, and the words that name the source in errors."""
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        return {**_read_preset(name_or_path), "preset": name_or_path}, f"preset {name_or_path}"
    source = f"config {path}"
    try:
        text = path.read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"{source}: {reason}; presets are: {', '.join(preset_names())}") from error
    own = _parse_yaml(text, source, ConfigError) or {}
    if not isinstance(own, dict):
        raise ConfigError(f"{source}: holds {type(own).__name__}, not settings: write section: {{key: value}}")
    own = {key: value for key, value in own.items() if key not in RUN_FILE_KEYS}
    name = str(own.setdefault("preset", "paper"))
    return _merge(_read_preset(name), own), source


def _parse_yaml(text: str, source: str, error: type[FundusSegError]) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: an impossible date, say
        raise error(f"{source}: not valid YAML: {' '.join(str(problem).split())}") from problem


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; here it is a number, as everybody who writes a learning rate means it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _refuse_unknown_keys(
    tree: Mapping[str, Any], model: type[BaseModel], source: str, error: type[FundusSegError], prefix: str = ""
) -> None:
    for key, value in tree.items():
        if key not in model.model_fields:
            names = [f"{prefix}{name}" for name in model.model_fields]
            elsewhere = [name for name in flatten(_DEFAULTS) if name.endswith(f".{key}")]
            hint = f"; there is {elsewhere[0]}" if elsewhere else ""
            raise error(f"{source}: {unknown_name('setting', f'{prefix}{key}', names)}{hint}")
        section = model.model_fields[key].annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if not isinstance(value, Mapping):
                raise error(
                    f"{source}: {prefix}{key} is a section: write {prefix}{key}.{next(iter(section.model_fields))}"
                )
            _refuse_unknown_keys(value, section, source, error, f"{prefix}{key}.")


_DEFAULTS = RunConfig(holdout="").model_dump()


def _validated(settings: Mapping[str, Any], source: str, error: type[FundusSegError]) -> RunConfig:
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise error(f"{source}: {key}: {message[:1].lower()}{message[1:]} (given: {first['input']!r})") from problem


def _readable(value: Any) -> str:
    """A value as part of a folder name: `[B, C]` as `B+C`, a path as its file's name."""
    text = "+".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+]", "_", text.rsplit("/", 1)[-1])
