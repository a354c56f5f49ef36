"""The settings of a run: names, types, defaults and help.

The defaults are the `paper` preset. The docstring of a field is its help, for `fundus-seg config` and docs/settings.md.

A run's settings go through four types, each with less left open than the one before:

- `Recipe`: everything that trains, and how its evaluation scores; what a preset holds
- `RunConfig`: a recipe with its holdout and seed
- `PlannedRun`: `data.sources` named, from the domains of the data root; `resolve_sources` makes it
- `ResolvedRun`: threads, precision and memory layout chosen, for the machine; `resolve_machine` makes it, and
  config.yaml in the run's folder records it
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fundus_seg import yaml_lines
from fundus_seg.builtins import AUGMENTATIONS, LOSSES, METHODS, OPERATORS, Precision, Selection
from fundus_seg.config.presets import preset_text
from fundus_seg.digests import short_hash
from fundus_seg.errors import UsageError
from fundus_seg.plugins import FORM, check_name, is_plugin
from fundus_seg.protocol import BeforeItExisted, Scoring

PLUGIN_SETTINGS = ("model.op", "train.loss", "train.augment", "train.method")
"""Settings that also accept `package.module:factory` in place of a built-in name."""

TOGETHER = "settings_together"
"""Type of the pydantic errors about settings that are valid alone but not together; `ctx` names them."""
_SELECTS = "scoring.threshold"

Positive = Annotated[int, Field(gt=0)]
_Rate = Annotated[float, Field(ge=0, lt=1)]
_LIST_TOO = Field(strict=False)
"""YAML has lists alone, no tuples."""


def _name(kind: str, builtin: Collection[str]) -> tuple[AfterValidator, FieldInfo]:
    """Accepts a name of `builtin`, or one of the form package.module:factory, which is not imported here."""

    def check(name: str) -> str:
        try:
            return check_name(kind, name, builtin)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check), Field(json_schema_extra={"enum": [*builtin, FORM]})


class Section(BaseModel):
    """A frozen group of settings; unknown ones are refused, and so are texts that look like numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataConfig(Section):
    """What the network sees."""

    size: Annotated[int, Field(ge=32, multiple_of=16)] = 256
    """Height and width in pixels that photographs and masks are resized to for training."""
    image_interpolation: Literal["lanczos", "bilinear"] = "lanczos"
    """How photographs are resized; masks are resized by the nearest pixel."""
    sources: Annotated[tuple[str, ...], _LIST_TOO] | None = None
    """Training domains; null: every domain of the data root except the holdout."""


class ModelConfig(Section):
    """The network."""

    op: Annotated[str, *_name("operator", OPERATORS)] = "tvconv"
    """Operator of the ASPP's branches."""
    encoder: str = "mobilenet_v2"
    """Encoder, by its name in segmentation-models-pytorch."""
    encoder_weights: str = "imagenet"
    """Initial weights of the encoder: imagenet (downloaded once), none (random), or the path of a state dict."""
    aspp_channels: Positive = 256
    """Channels of each branch of the ASPP, and of its output."""
    expansion: Positive = 6
    """Width of the inverted residual in each branch, as a multiple of its input channels."""
    generator_channels: Positive = 64
    """Channels of the weight generator of tvconv."""


class OptimConfig(Section):
    """Adam with a learning rate that drops in steps."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate at the start."""
    betas: Annotated[tuple[_Rate, _Rate], _LIST_TOO] = (0.9, 0.99)
    """Decay rates of Adam's two moment estimates."""
    drop_epochs: Annotated[tuple[int, ...], _LIST_TOO] = (30,)
    """Epochs, counted from 0, at whose start the learning rate is divided by drop_factor."""
    drop_factor: Annotated[float, Field(gt=0)] = 5.0
    """Divisor of the learning rate at each of the drop_epochs."""

    def lr_at(self, epoch: int) -> float:
        """Learning rate during epoch `epoch`, counted from 0."""
        return self.lr / self.drop_factor ** sum(epoch >= drop for drop in self.drop_epochs)


class TrainConfig(Section):
    """How the network is trained on the data."""

    epochs: Positive = 40
    """Epochs of the run."""
    batch_per_domain: Positive = 16
    """Cases of each source domain in a batch."""
    sampling: Literal["passes", "replacement"] = "passes"
    """passes: shuffled passes over each domain, smaller domains cycling; replacement: independent draws."""
    steps_per_epoch: Positive | None = None
    """Optimiser steps in an epoch; null: as many as one pass over the largest source domain takes."""
    loss: Annotated[str, *_name("loss", LOSSES)] = "bce"
    """Loss of each structure; bce is binary cross-entropy."""
    augment: Annotated[str, *_name("augmentation", AUGMENTATIONS)] = "none"
    """Augmentation of the training cases."""
    method: Annotated[str, *_name("method", METHODS), BeforeItExisted("none")] = "none"
    """Method of domain generalisation; none: plain training on the cases of all source domains together."""
    selection: Selection = "source-validation"
    """Rule that chooses the epoch whose weights are kept as `best`."""
    devices: Annotated[Positive, BeforeItExisted(1)] = 1
    """Devices that share every batch, a process each; batch norms see one device's share, so results change with it."""
    threads: Positive | None = None
    """CPU threads of the run; null: torch's own choice; recorded, and kept on resume."""
    precision: Annotated[Precision | None, BeforeItExisted("fp32")] = None
    """bf16: autocast, weights in float32; null: bf16 where the hardware supports it; recorded, and kept on resume."""
    channels_last: Annotated[bool | None, BeforeItExisted(False)] = None
    """Memory layout of the network; null: true; recorded, and kept on resume."""
    save_every: Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeItExisted(0.0)] = 30.0
    """Seconds that pass at least between two saves of a run; it trains the same with any; 0: after every epoch."""

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        per_domain, devices = self.batch_per_domain, self.devices
        if per_domain % devices:
            raise _together(
                f"train.batch_per_domain {per_domain} with train.devices {devices}: each takes as many cases of every "
                f"domain; choose a multiple of {devices}",
                "train.batch_per_domain",
                "train.devices",
            )
        if devices > 1 and self.method != "none":
            raise _together(
                f"train.method {self.method} with train.devices {devices}: a method sees whole batches; "
                "take one device",
                "train.method",
                "train.devices",
            )
        return self


class Recipe(Section):
    """Everything that trains, and how an evaluation scores if it is not told otherwise: what a preset holds."""

    preset: str = "paper"
    """Preset that the recipe starts from; its name is part of the run's folder."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    scoring: Scoring = Scoring()

    def training_settings(self) -> dict[str, Any]:
        """Everything that trains, as dotted settings: of the scoring the threshold alone, since it selects."""
        flat = flatten(self.model_dump(mode="json"))
        del flat["train.save_every"]
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
        settings = self.training_settings()
        return {setting: settings[setting] for setting in PLUGIN_SETTINGS if is_plugin(settings[setting])}


class RunConfig(Recipe):
    """Every setting of one run, as it is written: some may be left to the data root and to the machine."""

    holdout: str
    """Unseen domain, by its key in the data root: A, B, C or D in the paper's data."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random number of the run."""

    def differences(self, *, all_domains: Iterable[str]) -> dict[str, Any]:
        """Training settings that differ from the preset's, without those that the run folder names or records.

        The domains of the experiment, sources and holdout together, stand under `domains` if they are not
        `all_domains`: every holdout of one experiment then has the same recipe, and a table one column for it.
        """
        named = {"preset", "holdout", "seed", "model.op", "data.sources", *MACHINE_SETTINGS}
        standard = shipped_preset(self.preset).training_settings()
        own = self.training_settings()
        differing = {key: value for key, value in own.items() if key not in named and value != standard[key]}
        domains = sorted({self.holdout, *(self.data.sources or all_domains)})
        return differing if domains == sorted(all_domains) else {**differing, "domains": domains}

    @property
    def operator(self) -> str:
        """The operator as folders and tables name it: `package.module.factory` for `package.module:factory`.

        It is no other operator's name, since a factory's own name has no dot.
        """
        return self.model.op.replace(":", ".")

    def recipe(self, *, all_domains: Iterable[str]) -> str:
        """`setting=value-...-hash`, which names what differs from the preset; empty where nothing does."""
        differing = self.differences(all_domains=all_domains)
        if not differing:
            return ""
        parts = (f"{key.rsplit('.', 1)[-1]}={_readable(value)}" for key, value in sorted(differing.items()))
        return f"{'-'.join(parts)[:80]}-{short_hash(differing)}"


class PlannedData(DataConfig):
    """What the network sees, the training domains named."""

    sources: Annotated[tuple[str, ...], _LIST_TOO]


class PlannedRun(RunConfig):
    """Every setting of one run that does not depend on the machine."""

    data: PlannedData


class MachineSettings(Section):
    """The settings of `train` that are left to the machine where they are null.

    A run records what was chosen for it; they are not part of its folder's name.
    """

    threads: Positive
    precision: Precision
    channels_last: bool


MACHINE_SETTINGS = tuple(f"train.{name}" for name in MachineSettings.model_fields)


class ResolvedTrain(MachineSettings, TrainConfig):
    """How the network is trained, with what was chosen for the machine."""


class ResolvedRun(PlannedRun):
    """Every setting of one run, none left open: what it computes with, and what config.yaml records."""

    train: ResolvedTrain


def shipped_preset(name: str) -> Recipe:
    """The recipe of the preset `name`, which must be one of `preset_names`."""
    return Recipe.model_validate({**(yaml_lines.read(preset_text(name)) or {}), "preset": name})


def setting_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each setting of a model by its dotted name, those that stand in no section first."""
    fields = model.model_fields.items()
    yield from ((f"{prefix}{name}", field) for name, field in fields if section_model(field) is None)
    for name, field in fields:
        if section := section_model(field):
            yield from setting_fields(section, f"{prefix}{name}.")


def section_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section; None for a single setting."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def before_they_existed(model: type[BaseModel]) -> dict[str, Any]:
    """The values that all runs had before some settings of the model existed, by dotted setting."""
    values: dict[str, Any] = {}
    for parent in reversed(model.__mro__):  # a subclass that narrows a setting's type keeps what its parent says
        for name, field in getattr(parent, "model_fields", {}).items():
            for said in field.metadata:
                if isinstance(said, BeforeItExisted):
                    values[name] = said.value
            if section := section_model(field):
                values |= {f"{name}.{key}": value for key, value in before_they_existed(section).items()}
    return values


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _together(message: str, *settings: str) -> PydanticCustomError:
    return PydanticCustomError(TOGETHER, "{message}", {"message": message, "settings": settings})


def _readable(value: Any) -> str:
    """A value as part of a folder name: `[B, C]` as `B+C`, a path as its file's name."""
    text = "+".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+]", "_", text.rsplit("/", 1)[-1])
