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

import math
import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fundus_seg import yaml_lines
from fundus_seg.builtins import (
    ABLATIONS,
    ANNEALED,
    AUGMENTATION_PARTS,
    AUGMENTATIONS,
    LOSSES,
    METHODS,
    OPERATORS,
    Averaging,
    Norms,
    Precision,
    Schedule,
    Selection,
    positional_part,
)
from fundus_seg.config.fields import EffectWith, flatten, without_effect
from fundus_seg.config.presets import preset_text
from fundus_seg.digests import short_hash
from fundus_seg.errors import UsageError
from fundus_seg.plugins import FORM, is_plugin, joined, parts_of
from fundus_seg.protocol import NONE_UNSEEN, BeforeItExisted, Scoring

PLUGIN_SETTINGS = ("model.op", "train.loss", "train.augment", "train.method")
"""Settings that also accept `package.module:factory` in place of a built-in name."""

CHANGE_NOTHING = ("train.save_every", "train.keep_affinity")
"""Settings of what a run writes and when: it trains to the same bits with any value, and they may change on resume."""

TOGETHER = "settings_together"
"""Type of the pydantic errors about settings that are valid alone but not together; `ctx` names them."""
_SELECTS = "scoring.threshold"

Positive = Annotated[int, Field(gt=0)]
_Rate = Annotated[float, Field(ge=0, lt=1)]
_LIST_TOO = Field(strict=False)
"""YAML has lists alone, no tuples."""
_OF_STEPS = EffectWith("optim.schedule", ("step",))
_OF_SWAD = EffectWith("train.average", ("swad",))
_OF_ANNEALED = EffectWith("model.op", ANNEALED)


def _name(kind: str, builtin: Collection[str], parts: Collection[str] = ()) -> tuple[AfterValidator, FieldInfo]:
    """Accepts a name of `builtin`, several of `parts`, or the form package.module:factory, which is not imported here.

    Parts are joined by `+`; whatever their order, the value has them in the order of `parts`.
    """

    def check(name: str) -> str:
        try:
            return "+".join(parts_of(kind, name, builtin, parts))
        except UsageError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check), Field(json_schema_extra={"enum": [*builtin, FORM]})


def _check_ablation(name: str) -> str:
    """Accepts none, or several of ABLATIONS joined by `+`; the value has them in their order."""
    try:
        return name if name == "none" else "+".join(joined("ablation", name, ABLATIONS))
    except UsageError as error:
        raise ValueError(str(error)) from error


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
    """Encoder, by its name in segmentation-models-pytorch, or tu-NAME for a model of timm, vision transformers
    included; weights have licences of their own (docs/guide.md). Or a light network with an operator in its depthwise
    slots, such as tvconv-mobilenetv2-0.5."""
    encoder_weights: Annotated[str, EffectWith("model.start", ("none",))] = "imagenet"
    """Initial weights of the encoder: none (random), the path of a state dict, or imagenet (downloaded once; those of
    tu-tf_efficientnet_lite0 come with the extra `weights` and need no network)."""
    freeze: Annotated[Literal["none", "encoder"], BeforeItExisted("none")] = "none"
    """encoder: its weights and the statistics of its norms stay as they start, and all else trains; none: everything
    trains."""
    start: Annotated[str, BeforeItExisted("none")] = "none"
    """Run or checkpoint whose whole network the training starts from, in place of encoder_weights (`--from`); none: no
    such network."""
    aspp_channels: Positive = 256
    """Channels of each branch of the ASPP, and of its output."""
    expansion: Positive = 6
    """Width of the inverted residual in each branch, as a multiple of its input channels."""
    generator_channels: Annotated[Positive, EffectWith("model.op", ("tvconv", "depthwise-wide"))] = 64
    """Channels of the weight generator of tvconv."""
    ablation: Annotated[
        str,
        AfterValidator(_check_ablation),
        Field(json_schema_extra={"enum": ["none", *ABLATIONS]}),
        EffectWith("model.op", ("tvconv",)),
        BeforeItExisted("none"),
    ] = "none"
    """What is taken from tvconv; parts combine, as in no-affines+replicate. random-affinity: affinity maps start at
    random, not at 1; no-affines: norms of the weight generator have no scale and shift of each position; replicate: its
    convolutions pad by the nearest value, not by zeros; branch-6, branch-12, branch-18: these branches alone have
    tvconv, the others depthwise."""


class OptimConfig(Section):
    """Adam, or AdamW where weights decay, and the course of its learning rate."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate at the start of the schedule."""
    betas: Annotated[tuple[_Rate, _Rate], _LIST_TOO] = (0.9, 0.99)
    """Decay rates of Adam's two moment estimates."""
    weight_decay: Annotated[float, Field(ge=0), BeforeItExisted(0.0)] = 0.0
    """0: Adam; above: AdamW, which also shrinks weights by this share of the learning rate at each step, but not norms,
    biases and affinity maps."""
    schedule: Annotated[Schedule, BeforeItExisted("step")] = "step"
    """Course of the learning rate; step: it drops at the drop_epochs; cosine: it falls to 0 over the whole run, a
    little at each optimiser step."""
    drop_epochs: Annotated[tuple[int, ...], _LIST_TOO, _OF_STEPS] = (30,)
    """For schedule step: epochs, counted from 0, at whose start the learning rate is divided by drop_factor."""
    drop_factor: Annotated[float, Field(gt=0), _OF_STEPS] = 5.0
    """For schedule step: divisor of the learning rate at each of the drop_epochs."""
    warmup: Annotated[float, Field(ge=0), BeforeItExisted(0.0)] = 0.0
    """Epochs, 0.5 for half of one, in which the learning rate rises evenly, at each optimiser step, to that of the
    schedule."""

    def lr_at(self, step: int, *, steps: int, epochs: int) -> float:
        """Learning rate of one optimiser step; it follows from the step alone, so that a run resumes to the same bits.

        With n = `step` / `steps`, the epochs before the step, N = `epochs` and w = `warmup`, it is

            min(1, (n + 1 / steps) / w) lr / drop_factor^d           schedule step; d of the drop_epochs are <= n
            min(1, (n + 1 / steps) / w) lr (1 + cos(pi n / N)) / 2   schedule cosine

        The cosine is that of I. Loshchilov, F. Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts (ICLR
        2017) without restarts; the warm-up is that of P. Goyal et al.: Accurate, Large Minibatch SGD (2017), from 0. It
        is given in epochs, as the drops are, since the steps of an epoch depend on the data.

        Args:
            step: number of the step, counted from 0 over the whole run.
            steps: optimiser steps in an epoch.
            epochs: epochs of the run.
        """
        if self.schedule == "cosine":
            rate = self.lr * (1 + math.cos(math.pi * step / (steps * epochs))) / 2
        else:
            rate = self.lr / self.drop_factor ** sum(step // steps >= drop for drop in self.drop_epochs)
        return rate * min(1.0, (step + 1) / (self.warmup * steps)) if self.warmup else rate


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
    """Loss of each structure; bce: binary cross-entropy; bce-dice: its sum with the soft Dice loss of each case."""
    augment: Annotated[str, *_name("augmentation", AUGMENTATIONS, AUGMENTATION_PARTS)] = "none"
    """Augmentation of the training cases; the parts from framing to bigaug combine, as in framing+flip+colour."""
    shift: Annotated[float, Field(ge=0, le=0.5), BeforeItExisted(0.0)] = 0.0
    """Largest random translation of the training cases, as a share of the side for each axis, drawn anew in each step
    and reflected at the border: crops that are aligned less well."""
    method: Annotated[str, *_name("method", METHODS), BeforeItExisted("none")] = "none"
    """Method of domain generalisation; none: plain training on the cases of all source domains together."""
    selection: Selection = "source-validation"
    """Rule that chooses the epoch whose weights are kept as `best`."""
    average: Annotated[Averaging, BeforeItExisted("none")] = "none"
    """Mean of the network's weights that is kept as checkpoint `average`; ema: exponential, of all steps, at the epoch
    that the selection chooses; swa: of the last epochs; swad: of all steps while the validation Dice is near its
    best."""
    ema_decay: Annotated[_Rate, EffectWith("train.average", ("ema",)), BeforeItExisted(0.999)] = 0.999
    """For average ema: share of the mean that a step keeps; less in the first steps, (1 + n) / (10 + n) in step n."""
    swa_start: Annotated[_Rate, EffectWith("train.average", ("swa",)), BeforeItExisted(0.75)] = 0.75
    """For average swa: share of the run's epochs after which epochs count."""
    swad_n_s: Annotated[Positive, _OF_SWAD, BeforeItExisted(3)] = 3
    """For average swad: epochs without a better validation Dice by which the first epoch that counts is known."""
    swad_n_e: Annotated[Positive, _OF_SWAD, BeforeItExisted(6)] = 6
    """For average swad: epochs in a row with a validation Dice too low to be tolerated, before which the last one that
    counts stands."""
    swad_r: Annotated[float, Field(ge=1), _OF_SWAD, BeforeItExisted(1.3)] = 1.3
    """For average swad: what is tolerated of 1 - Dice, as a multiple of its mean over the first swad_n_s epochs that
    count."""
    temperature: Annotated[float, Field(gt=0), _OF_ANNEALED, BeforeItExisted(30.0)] = 30.0
    """For operators dyconv-dw and dyconv-pw: temperature of the softmax over kernels in the first epoch."""
    temperature_epochs: Annotated[int, Field(ge=0), _OF_ANNEALED, BeforeItExisted(10)] = 10
    """For operators dyconv-dw and dyconv-pw: epochs in which the temperature falls evenly to 1, where it stays; 0: it
    is 1 from the start."""
    norms: Annotated[Norms, BeforeItExisted("running")] = "running"
    """Statistics that batch norms use outside training; running: exponential means of the steps, which lag behind
    weights that move fast; renewed: after each epoch, means over a few batches."""
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
    keep_affinity: Annotated[bool, BeforeItExisted(False)] = False
    """true: after each epoch, keep in half precision what affinity maps, affines and kernels are like, for `fundus-seg
    affinity --over-training`; the run trains the same. Operators without a kernel for each position keep nothing."""

    def temperature_at(self, epoch: int) -> float:
        """Temperature of dynamic convolutions in an epoch, counted from 0; it follows from the epoch alone."""
        left = max(0.0, 1 - epoch / self.temperature_epochs) if self.temperature_epochs else 0.0
        return 1 + (self.temperature - 1) * left

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
        if devices > 1 and self.norms == "renewed":
            raise _together(
                f"train.norms renewed with train.devices {devices}: each device would have statistics of its own; take "
                "one device",
                "train.norms",
                "train.devices",
            )
        if self.average == "swad" and self.selection == "last":
            raise _together(
                "train.average swad with train.selection last: swad follows the validation Dice, which selection last "
                "does not compute; take another of the two",
                "train.average",
                "train.selection",
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
        scoring = {key for key in flat if key.startswith("scoring.") and key != _SELECTS}
        return {key: value for key, value in flat.items() if key not in scoring and key not in CHANGE_NOTHING}

    def effective_settings(self) -> dict[str, Any]:
        """The `training_settings` without those that do nothing beside the others: equal ones train to equal bits."""
        own = self.training_settings()
        idle = without_effect(type(self), own)
        return {key: value for key, value in own.items() if key not in idle}

    @property
    def mirrored(self) -> bool:
        """Whether `train.augment` is known to mirror photographs."""
        return "flip" in self.train.augment.split("+")

    @property
    def one_sided(self) -> str | None:
        """What in the network knows the left of a photograph from the right, if it is trained on no mirrored one."""
        return None if self.mirrored else positional_part(self.model.op, self.model.encoder)

    def network_spec(self) -> dict[str, Any]:
        """The arguments of `fundus_seg.models.build_model`, weights apart; a checkpoint's `model_spec`."""
        ablated = self.model.op == "tvconv" and self.model.ablation != "none"
        return {
            "op": self.model.op,
            "encoder": self.model.encoder,
            "image_size": self.data.size,
            "aspp_channels": self.model.aspp_channels,
            "expansion": self.model.expansion,
            "generator_channels": self.model.generator_channels,
            **({"ablation": self.model.ablation} if ablated else {}),
        }

    def plugins(self) -> dict[str, str]:
        """The settings that name code from outside the package, by dotted setting."""
        settings = self.training_settings()
        return {setting: settings[setting] for setting in PLUGIN_SETTINGS if is_plugin(settings[setting])}


class RunConfig(Recipe):
    """Every setting of one run, as it is written: some may be left to the data root and to the machine."""

    holdout: str
    """Unseen domain, by its key in the data root: A, B, C or D in the paper's data; none: train on every domain."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random number of the run."""

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        drops = self.optim.drop_epochs
        if self.optim.schedule == "cosine" and drops and drops != shipped_preset(self.preset).optim.drop_epochs:
            raise _together(
                f"optim.drop_epochs {list(drops)} with optim.schedule cosine: a cosine has no drops; leave one of the "
                "two out",
                "optim.drop_epochs",
                "optim.schedule",
            )
        return self

    def differences(self, *, all_domains: Iterable[str]) -> dict[str, Any]:
        """Settings with an effect that differ from the preset's, without those that the run folder names or records.

        The domains of the experiment, sources and holdout together, stand under `domains` if they are not
        `all_domains`: every holdout of one experiment then has the same recipe, and a table one column for it.
        """
        named = {"preset", "holdout", "seed", "model.op", "data.sources", *MACHINE_SETTINGS}
        standard = shipped_preset(self.preset).training_settings()
        own = self.effective_settings()
        differing = {key: value for key, value in own.items() if key not in named and value != standard[key]}
        domains = sorted({*self.unseen, *(self.data.sources or all_domains)})
        return differing if domains == sorted(all_domains) else {**differing, "domains": domains}

    @property
    def unseen(self) -> tuple[str, ...]:
        """The holdout; empty for a run that trains on every domain."""
        return () if self.holdout == NONE_UNSEEN else (self.holdout,)

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


def _together(message: str, *settings: str) -> PydanticCustomError:
    return PydanticCustomError(TOGETHER, "{message}", {"message": message, "settings": settings})


def _readable(value: Any) -> str:
    """A value as part of a folder name: `[B, C]` as `B+C`, a path as its file's name."""
    text = "+".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+]", "_", text.rsplit("/", 1)[-1])
