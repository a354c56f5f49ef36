"""What was asked, the protocol in words, and a methods paragraph, each made from the settings of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from fundus_seg.config import Recipe
from fundus_seg.errors import counted
from fundus_seg.protocol import DOMAINS, NSD_TOLERANCE, Combination, Scoring, warning_of
from fundus_seg.reporting.page.results import Results
from fundus_seg.reporting.runs import ScoredRun
from fundus_seg.runs.identity import MEAN_MASK
from fundus_seg.statistics.intervals import MINIMAL_RUNS

_SELECTIONS = {
    "source-validation": "the epoch with the highest mean Dice on one half of the training domains' test photographs",
    "last": "the last epoch",
    "oracle": "the epoch with the highest Dice on the very cases that are reported, which leaks",
}
_OPERATORS = {
    "conv": "an atrous convolution",
    "depthwise": "an inverted residual with a depthwise convolution",
    "tvconv": "an inverted residual with a translation-variant convolution (TVConv)",
}
"""The paper's operators in words; another one stands with its name."""


def asked(results: Results) -> list[str]:
    """What was asked of these runs, a sentence each."""
    runs, external = results.runs, results.external
    sentences = []
    if runs:
        holdouts = sorted({run.config.holdout for run in runs})
        operators = dict.fromkeys(run.evaluation.meta.run.name for run in runs)
        seeds = {run.evaluation.meta.run.seed for run in runs}
        sentences += [
            "How well are optic disc and optic cup segmented in photographs of a camera and a hospital that training "
            "has never seen?",
            f"{counted(len(runs), 'run')} answer it: {counted(len(operators), 'operator or recipe')} "
            f"({', '.join(operators)}), {counted(len(holdouts), 'unseen domain')} ({', '.join(holdouts)}), "
            f"{counted(len(seeds), 'seed')}. Each network was trained on the other domains, and no photograph of its "
            "unseen domain had a part in that.",
        ]
        choices = sorted({run.evaluation.meta.selection for run in runs})
        sentences += [f"Checkpoints were chosen by: {', '.join(map(_choice, choices))}."]
    if external:
        tools = sorted({each.meta.run.operator for each in external})
        sentences.append(f"Masks that other tools made stand beside them: {', '.join(tools)}.")
    if results.seen:
        sentences.append(
            f"{counted(len(results.seen), 'run')} trained on every domain, so no domain is unseen by them; "
            "they have in-domain scores alone."
        )
    return sentences


def _choice(selection: str) -> str:
    warning = warning_of(selection)
    return f"{selection} ({warning})" if warning else selection


def protocol_frame(protocol: Scoring) -> pd.DataFrame:
    """The scoring protocol: setting, value, default, and what it means, a row each."""
    default = type(protocol)().model_dump()
    fields = type(protocol).model_fields
    return pd.DataFrame(
        {"setting": name, "value": str(value), "default": str(default[name]), "meaning": fields[name].description or ""}
        for name, value in protocol.model_dump().items()
    )


def methods(results: Results) -> str:
    """A paragraph for a manuscript: network, training, selection, scoring and statistics of the runs."""
    runs = results.every_run
    texts = [_network(runs), _training(runs), _choosing(runs), _scoring(runs[0].evaluation.meta.protocol)]
    if results.runs:
        texts.append(_statistics(results.runs))
    if results.phantom:
        texts.insert(0, "All photographs are synthetic (a phantom), so these numbers say nothing about patients.")
    versions = runs[0].evaluation.meta.versions
    software = ", ".join(f"{name} {versions[name]}" for name in ("fundus-seg", "torch") if name in versions)
    return " ".join([*texts, f"Software: {software}."] if software else texts)


def _network(runs: Sequence[ScoredRun]) -> str:
    models = [run.config.model for run in runs]
    operators = dict.fromkeys(_OPERATORS.get(model.op, model.op) for model in models)
    weights = _shared(_weights(run.config) for run in runs)
    return (
        f"We trained DeepLabV3+ with {_shared(model.encoder for model in models)} as encoder ({weights}), whose "
        f"atrous spatial pyramid pooling ({_shared(model.aspp_channels for model in models)} channels a branch) "
        f"has in its branches {_listed(list(operators), 'or')}. Photographs were resized to "
        f"{_shared(f'{run.config.data.size}×{run.config.data.size}' for run in runs)} pixels "
        f"({_shared(run.config.data.image_interpolation for run in runs)})."
    )


def _weights(config: Recipe) -> str:
    if config.model.start != "none":
        return "the whole network started from another one"
    given = config.model.encoder_weights
    named = {"none": "random initial weights", "imagenet": "initial weights from ImageNet"}
    return named.get(given, "initial weights from a file")


def _training(runs: Sequence[ScoredRun]) -> str:
    configs = [run.config for run in runs]
    optims, trains = [each.optim for each in configs], [each.train for each in configs]
    decay = _shared(each.weight_decay for each in optims)
    optimiser = "Adam" if decay == "0.0" else f"AdamW (weight decay {decay})"
    schedule = _shared(
        "a cosine over the whole run"
        if each.schedule == "cosine"
        else f"divided by {each.drop_factor:g} at the start of epoch {', '.join(str(drop + 1) for drop in each.drop_epochs)}"
        if each.drop_epochs
        else "constant"
        for each in optims
    )
    domains = _shared(len(config.data.sources) for config in configs)
    parts = {"augmentation": {each.augment for each in trains}, "method of domain generalisation": {each.method for each in trains}}
    further = [f"{what} {_shared(sorted(names))}" for what, names in parts.items() if names != {"none"}]
    augmented = f", with {_listed(further, 'and')}" if further else ", without augmentation"
    return (
        f"Training took {_shared(each.epochs for each in trains)} epochs with {optimiser} (learning rate "
        f"{_shared(f'{each.lr:g}' for each in optims)}, {schedule}) on the mean over disc and cup of the loss "
        f"{_shared(each.loss for each in trains)}, in batches of {_shared(each.batch_per_domain for each in trains)} "
        f"photographs from each of {domains} training domains{augmented}."
    )


def _choosing(runs: Sequence[ScoredRun]) -> str:
    rules = dict.fromkeys(run.config.train.selection for run in runs)
    kept = _listed([_SELECTIONS[rule] for rule in rules], "or")
    names = dict.fromkeys(str(run.evaluation.meta.checkpoint) for run in runs)
    return f"Of each run we report the checkpoint {_listed(list(names), 'or')}; the run keeps as best {kept}."


def _scoring(protocol: Scoring) -> str:
    cleaned = [
        text
        for on, text in (
            (protocol.largest_component, "only its largest connected component was kept"),
            (protocol.fill_holes, "holes were filled"),
            (protocol.anatomical, "masks were made anatomical"),
        )
        if on
    ]
    combined = ""
    if isinstance(protocol, Combination):
        several = [*(["networks"] if protocol.ensemble else []), *(["mirrored views"] if protocol.views != "none" else [])]
        combined = f"Probabilities were averaged over {_listed(several, 'and')}. "
    seen = "resized probabilities" if protocol.inference == "resize" else "probabilities"
    adapted = f" The scores are {protocol.warning}." if protocol.warning else ""
    return (
        f"{combined}Masks are {seen} above {protocol.threshold:g} in the photograph's own frame; "
        f"{_listed(cleaned, 'and') or 'they were not post-processed'}. We report the Dice coefficient, the normalised "
        f"surface Dice at {NSD_TOLERANCE:g} pixels, and Hausdorff and surface distances in pixels of an 800×800 frame; "
        f"an empty prediction counts as {protocol.empty_distance:g}, and an empty truth is excluded (scoring protocol "
        f"{protocol.digest()}).{adapted}"
    )


def _statistics(runs: Sequence[ScoredRun]) -> str:
    counts: dict[tuple[Any, str], int] = {}
    for run in runs:
        key = (run.evaluation.meta.column, run.config.holdout)
        counts[key] = counts.get(key, 0) + 1
    per_cell = _shared(sorted(counts.values()))
    resampled = "runs and patients" if min(counts.values()) >= MINIMAL_RUNS else "patients, of fewer than three runs"
    holdouts = sorted({run.config.holdout for run in runs})
    named = ", ".join(f"{key} ({DOMAINS[key].name})" if key in DOMAINS else key for key in holdouts)
    known = holdouts if any(run.evaluation.meta.phantom for run in runs) else [named]
    return (
        f"In turn each of {', '.join(known)} was left out of training and scored, with {per_cell} runs per operator and "
        f"unseen domain. Means are over cases and then runs, with 95 % bootstrap intervals over {resampled}. Operators "
        f"were compared on the same cases and seeds by Wilcoxon's signed-rank test over patients, adjusted by Holm's "
        f"method. As a floor, the mean mask of the training domains ({MEAN_MASK}) was scored in the same way."
    )


def _shared(values: Iterable[object]) -> str:
    """What all values are; where they differ, each of them."""
    return _listed([str(each) for each in dict.fromkeys(values)], "or")


def _listed(texts: Sequence[str], joint: str) -> str:
    """`a, b or c`."""
    return f" {joint} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
