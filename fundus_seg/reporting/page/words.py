"""What was asked, the protocol in words, and a methods paragraph, each made from the settings of the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd
from pydantic.fields import FieldInfo

from fundus_seg.config import ModelConfig, OptimConfig
from fundus_seg.errors import counted, one_line
from fundus_seg.protocol import DOMAINS, Combination, Scoring
from fundus_seg.reporting.frames import captions_of
from fundus_seg.reporting.notes import recipe_notes, selections_text
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.statistics.intervals import MINIMAL_RUNS

_CHOICES = {
    "source-validation": "the epoch with the highest mean Dice on one half of the training domains' test photographs",
    "last": "the last epoch",
    "oracle": "the epoch with the highest Dice on the very photographs that are reported, which leaks",
    "average": "the mean of its weights over training",
}
"""What the words of `protocol.chosen_by` mean."""
_OPERATORS = {
    "conv": "atrous convolutions",
    "depthwise": "inverted residuals with a depthwise convolution",
    "tvconv": "inverted residuals with a translation-variant convolution (TVConv)",
}
"""The paper's operators in words; another one stands with its name."""
_LOSSES = {"bce": "binary cross-entropy", "bce-dice": "binary cross-entropy plus the soft Dice loss"}
_SAID = {
    *("data.size", "data.image_interpolation", "model.encoder", "model.encoder_weights", "model.aspp_channels"),
    *("optim.lr", "optim.betas", "optim.weight_decay", "optim.schedule", "optim.drop_epochs", "optim.drop_factor"),
    *("optim.warmup", "train.epochs", "train.loss", "train.batch_per_domain", "train.augment", "train.method"),
    *("train.selection", "scoring.threshold"),
}
"""The settings that the sentences of `methods` say."""


def asked(results: Results) -> list[str]:
    """What was asked of these runs, a sentence each."""
    runs, external = results.runs, results.external
    sentences = []
    if runs:
        evaluations = [run.evaluation for run in runs]
        columns = [each.meta.column for each in evaluations]
        names = captions_of(evaluations).values()
        holdouts = sorted({each.meta.run.holdout for each in evaluations})
        of_seeds = f"; {counted(len({each.meta.run.seed for each in evaluations}), 'seed')}"
        unit = _unit(runs)
        sentences += [
            "How well are optic disc and optic cup segmented in photographs of a camera and a hospital that training "
            "has never seen?",
            f"{counted(len(runs), unit)} answer it: {', '.join(names)}; unseen {', '.join(holdouts)}"
            f"{of_seeds if unit == 'run' else ''}. Each network was trained on other domains, and no photograph of its "
            "unseen domain had a part in that.",
            *recipe_notes(columns),
        ]
        sentences.append(f"How checkpoints were chosen: {selections_text(evaluations)}.")
    if external:
        tools = sorted({each.meta.run.operator for each in external})
        sentences.append(f"Masks that other tools made stand beside them: {', '.join(tools)}.")
    if results.seen:
        sentences.append(
            f"{counted(len(results.seen), 'run')} trained on every domain, so no domain is unseen by them; "
            "they have in-domain scores alone."
        )
    return sentences


def _unit(runs: Sequence[ScoredRun]) -> str:
    return "ensemble" if any(run.evaluation.meta.members for run in runs) else "run"


def protocol_frame(protocol: Scoring) -> pd.DataFrame:
    """The scoring protocol: setting, value, default, and what it means, a row each."""
    default = type(protocol)().model_dump()
    fields = type(protocol).model_fields
    return pd.DataFrame(
        {
            "setting": name,
            "value": str(value),
            "default": str(default[name]),
            "meaning": _plain(fields[name]),
        }
        for name, value in protocol.model_dump().items()
    )


def _plain(field: FieldInfo) -> str:
    """The help of a setting on one line."""
    return one_line(field.description or "")


def methods(results: Results) -> str:
    """A paragraph for a manuscript: network, training, selection, scoring and statistics of the runs.

    It names the preset, and all that the recipes change of it, whether its other sentences say that or not.
    """
    runs = results.every_run
    texts = [_network(runs), _training(runs), _further(runs), _choosing(runs)]
    texts.append(_scoring(runs[0].evaluation.meta.protocol))
    if results.runs:
        texts.append(_statistics(results))
    if results.phantom:
        texts.insert(0, "All photographs are synthetic (a phantom), so these numbers say nothing about patients.")
    software = [
        f"{name} {_shared(run.evaluation.meta.versions.get(name, 'of unknown version') for run in runs)}"
        for name in ("fundus-seg", "torch")
    ]
    return " ".join([*texts, f"Software: {', '.join(software)}."])


def _network(runs: Sequence[ScoredRun]) -> str:
    models, data = [run.config.model for run in runs], [run.config.data for run in runs]
    operators = dict.fromkeys(_OPERATORS.get(model.op, model.op) for model in models)
    return (
        f"We trained DeepLabV3+ with the encoder {_shared(model.encoder for model in models)} "
        f"({_shared(map(_weights, models))}). The spatial branches of its atrous spatial pyramid pooling, of "
        f"{_shared(model.aspp_channels for model in models)} channels each, were {_listed(list(operators), 'or')}. "
        f"Photographs were resized to {_shared(f'{each.size}×{each.size}' for each in data)} pixels "
        f"({_shared(each.image_interpolation for each in data)})."
    )


def _weights(model: ModelConfig) -> str:
    if model.start != "none":
        return "the whole network started from another one"
    named = {"none": "random initial weights", "imagenet": "initial weights from ImageNet"}
    return named.get(model.encoder_weights, "initial weights from a file")


def _training(runs: Sequence[ScoredRun]) -> str:
    configs = [run.config for run in runs]
    trains = [each.train for each in configs]
    optimisers = _shared(_optimiser(each.optim, each.train.epochs) for each in configs)
    return (
        f"Training took {_shared(each.epochs for each in trains)} epochs with {optimisers} on "
        f"the mean over disc and cup of {_shared(_LOSSES.get(each.loss, each.loss) for each in trains)}, in batches of "
        f"{_shared(each.batch_per_domain for each in trains)} photographs from each of "
        f"{_shared(len(each.data.sources) for each in configs)} training domains (augmentation: "
        f"{_shared(each.augment for each in trains)}; method of domain generalisation: "
        f"{_shared(each.method for each in trains)})."
    )


def _optimiser(optim: OptimConfig, epochs: int) -> str:
    name = f"AdamW (weight decay {optim.weight_decay:g})" if optim.weight_decay else "Adam"
    course = "constant"
    if optim.schedule == "cosine":
        course = "falling to 0 along a cosine"
    elif drops := [str(drop) for drop in optim.drop_epochs if drop < epochs]:
        course = f"divided by {optim.drop_factor:g} after epoch {_listed(drops, 'and')}"
    warmup = f", after a rise over {optim.warmup:g} epochs" if optim.warmup else ""
    betas = ", ".join(f"{beta:g}" for beta in optim.betas)
    return f"{name} (betas {betas}; learning rate {optim.lr:g}, {course}{warmup})"


def _further(runs: Sequence[ScoredRun]) -> str:
    """The preset, and what the recipes change of it and no other sentence says; the domains are named elsewhere."""
    domains = {domain for run in runs for domain in (*run.config.unseen, *run.config.data.sources)}
    changed = {
        f"{key} {value}"
        for run in runs
        for key, value in run.config.differences(all_domains=domains).items()
        if key not in _SAID and key != "domains"
    }
    but = f", but for {', '.join(sorted(changed))}" if changed else ""
    return f"All other settings are those of preset {_shared(run.config.preset for run in runs)} of fundus-seg{but}."


def _choosing(runs: Sequence[ScoredRun]) -> str:
    choices = dict.fromkeys(run.evaluation.meta.selection for run in runs)
    return f"Of each run we report {_listed([_CHOICES.get(each, f'the weights {each}') for each in choices], 'or')}."


def _scoring(protocol: Scoring) -> str:
    cleaning = {
        "only the largest connected component of each was kept": protocol.largest_component,
        "holes were filled": protocol.fill_holes,
        "masks were made anatomical": protocol.anatomical,
    }
    cleaned = _listed([text for text, on in cleaning.items() if on], "and") or "they were not post-processed"
    combined = ""
    if isinstance(protocol, Combination):
        several = {"networks that differ in their seed": protocol.ensemble, "mirrored views": protocol.views != "none"}
        combined = f"Probabilities were averaged over {_listed([text for text, on in several.items() if on], 'and')}. "
    adapted = f" The scores are {protocol.warning}." if protocol.warning else ""
    smoothed = f" (smoothed by {protocol.dice_smoothing:g})" if protocol.dice_smoothing else ""
    return (
        f"{combined}Masks are the pixels whose probability is above {protocol.threshold:g} in the photograph's own "
        f"frame; {cleaned}. Overlap is the Dice coefficient{smoothed}, distances are in pixels of an 800×800 frame; "
        f"an empty prediction counts as a distance of {protocol.empty_distance:g}, and an empty truth is excluded "
        f"(scoring protocol {protocol.digest()}).{adapted}"
    )


def _statistics(results: Results) -> str:
    counts = Counter((run.evaluation.meta.column, run.config.holdout) for run in results.runs)
    cases = {run.config.holdout: run.evaluation.cases["case"].nunique() for run in results.runs}
    domains = ", ".join(
        f"{key} ({'' if results.phantom or key not in DOMAINS else f'{DOMAINS[key].name}, '}{cases[key]} photographs)"
        for key in sorted(cases)
    )
    several = len({column for column, _ in counts}) > 1
    compared = (
        " Operators were compared on the same photographs and seeds by Wilcoxon's signed-rank test over patients, with "
        "p values adjusted by Holm's method."
    )
    each = _shared(counted(count, _unit(results.runs)) for count in sorted(counts.values()))
    return (
        f"Each of these domains in turn was left out of training and scored: {domains}; with {each} per operator and "
        "domain. Means are over photographs, then runs; 95 % intervals are bootstrapped over runs and patients, "
        f"of fewer than {MINIMAL_RUNS} runs over patients alone.{compared if several else ''} As a floor, the mean "
        "mask of the training domains was scored likewise."
    )


def _shared(values: Iterable[object]) -> str:
    """What all values are; where they differ, each of them."""
    return _listed([str(each) for each in dict.fromkeys(values)], "or")


def _listed(texts: Sequence[str], joint: str) -> str:
    """`a, b or c`."""
    return f" {joint} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
