"""A search of settings without cheating: of the recipes that were tried, source validation takes the best.

For each operator and each unseen domain the recipe is taken whose runs have the highest validation Dice, the score that
chose their `best` checkpoint: the rule "training-domain validation set" of Gulrajani and Lopez-Paz, In search of lost
domain generalization, ICLR 2021. The choice is made anew for each unseen domain, from the runs that never saw it: runs
with other holdouts validate on photographs of that very domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from fundus_seg.errors import ProtocolError, RunError, counted
from fundus_seg.evaluation.metric_table import METRICS, check_metrics
from fundus_seg.evaluation.records import Evaluation
from fundus_seg.reporting.frames import captions_of, case_values, summarise
from fundus_seg.reporting.notes import label_notes, protocol_note, recipe_notes, table_title
from fundus_seg.reporting.table import Report, Table, difference_text, mean_sd_text
from fundus_seg.reporting.tables import overall
from fundus_seg.runs.epochs import read_epochs, row_score
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import BEST_OF, COLUMN_FIELDS, Column

_RULE = "source-validation"
_SEVERAL = "several"


@dataclass(frozen=True)
class Choice:
    """What was tried of one operator on one unseen domain, and what source validation takes.

    Attributes:
        operator: name of the operator.
        holdout: the unseen domain.
        validation: the mean validation Dice in % of each column that was tried, over `seeds`.
        seeds: those that every column has there.
        chosen: the column with the highest validation Dice; of equal ones the first.
    """

    operator: str
    holdout: str
    validation: Mapping[Column, float]
    seeds: tuple[int, ...]

    @property
    def chosen(self) -> Column:
        """The column with the highest validation Dice; of equal ones the first in the order of a table."""
        return max(sorted(self.validation), key=lambda column: self.validation[column])


@dataclass(frozen=True)
class Search:
    """A search of settings.

    Attributes:
        choices: by operator and unseen domain, in the order of a table.
        tried: how many columns were tried of each operator.
        evaluations: scores of the chosen runs; the recipe of an operator of which several were tried is `best-of-N`.
        unused: a line for each group of runs that takes no part, since not every column has their seed.
    """

    choices: tuple[Choice, ...]
    tried: Mapping[str, int]
    evaluations: tuple[Evaluation, ...]
    unused: tuple[str, ...]


def validation_score(evaluation: Evaluation) -> float:
    """The validation Dice in % by which a run chose `best`: the highest mean over structures of its epochs.

    Raises:
        RunError: metrics.csv cannot be read, or holds no validation Dice.
    """
    path = RunFolder(evaluation.path.parent.parent).metrics
    best = max(map(row_score, read_epochs(path)), default=-math.inf)
    if best == -math.inf:
        raise RunError(f"{path}: holds no validation Dice, by which settings are chosen; leave the run out")
    return 100 * best


def search(evaluations: Sequence[Evaluation]) -> Search:
    """Choose a recipe of each operator for each unseen domain, by source validation alone.

    Args:
        evaluations: scores of `best` of every run that was tried.

    Raises:
        ProtocolError: a checkpoint that was not chosen by source validation, recipes without a seed in common, or
            recipes that were validated on other photographs than the others.
        RunError: as `validation_score`.
    """
    for each in evaluations:
        if each.meta.selection != _RULE:
            raise ProtocolError(
                f"{each.path}: selection {each.meta.selection}, and settings are chosen by {_RULE} alone; leave it out"
            )
    places: dict[tuple[str, str], dict[Column, dict[int, Evaluation]]] = {}
    for each in sorted(evaluations, key=lambda each: (each.meta.column, each.meta.run.holdout, each.meta.run.seed)):
        columns = places.setdefault((each.meta.run.operator, each.meta.run.holdout), {})
        columns.setdefault(each.meta.column, {})[each.meta.run.seed] = each
    names = captions_of(evaluations)
    choices, chosen, unused = [], [], []
    tried = {
        operator: sorted({column for (own, _), columns in places.items() if own == operator for column in columns})
        for operator, _ in places
    }
    for (operator, holdout), columns in places.items():
        _check_one_validation(holdout, [each for runs in columns.values() for each in runs.values()])
        seeds = sorted(set.intersection(*(set(runs) for runs in columns.values())))
        if not seeds:
            raise ProtocolError(
                f"unseen {holdout}: no seed that all of {', '.join(names[column] for column in columns)} have; "
                "train the missing runs, or leave a setting out"
            )
        for column, runs in columns.items():
            if further := sorted(set(runs) - set(seeds)):
                listed = ", ".join(map(str, further))
                unused.append(f"unseen {holdout}: {names[column]} alone has {counted(len(further), 'seed')} ({listed})")
        validation = {
            column: float(np.mean([validation_score(runs[seed]) for seed in seeds])) for column, runs in columns.items()
        }
        choice = Choice(operator, holdout, validation, tuple(seeds))
        choices.append(choice)
        chosen += [_as_best_of(columns[choice.chosen][seed], tried[operator]) for seed in seeds]
    counts = {operator: len(columns) for operator, columns in tried.items()}
    return Search(tuple(choices), counts, tuple(chosen), tuple(unused))


def _check_one_validation(holdout: str, evaluations: Sequence[Evaluation]) -> None:
    """Refuse runs whose validation Dice are of other photographs: that of easier ones says nothing for a recipe."""
    first, *others = evaluations
    for each in others:
        domains, other = (
            {where: digest for where, digest in own.meta.data.items() if where != f"{holdout}/test"}
            for own in (each, first)
        )
        if domains != other:
            raise ProtocolError(
                f"unseen {holdout}: {each.path} was trained and validated on other photographs than {first.path}, and "
                "their validation Dice do not compare; leave one of the two out"
            )


def _as_best_of(evaluation: Evaluation, tried: Sequence[Column]) -> Evaluation:
    """The scores of a chosen run, in the one column of all chosen runs of its operator.

    They carry no digest of plugins and weights, which are the same for one recipe, but not for the recipes of a search.
    """
    if len(tried) == 1:
        return evaluation
    presets, precisions = {column.preset for column in tried}, {column.precision for column in tried}
    run = replace(
        evaluation.meta.run,
        recipe=f"{BEST_OF}{len(tried)}",
        preset=presets.pop() if len(presets) == 1 else _SEVERAL,
        precision=precisions.pop() if len(precisions) == 1 else _SEVERAL,
    )
    return replace(evaluation, meta=evaluation.meta.model_copy(update={"run": run, "code": {}}), label="")


def search_table(evaluations: Sequence[Evaluation], found: Search, metric: str = "dsc") -> Report:
    """What was tried and chosen, and what a choice by the scored cases themselves would have pretended to gain.

    The frame has a row for each operator and unseen domain: operator, holdout, how many columns were tried, the fields
    of the chosen one (`chosen_recipe`, ...), seeds, validation (its Dice in %), the metric, its value of the chosen
    column, and of the column that has the best value (`pretended`), and gain: by how much that is better, 0 or above.
    Values are means over runs of means over cases, then over structures.

    Args:
        evaluations: those that were searched.
        found: what `search` found among them.
        metric: a key of `METRICS`.

    Raises:
        ProtocolError: evaluations that must not stand in one table.
        UsageError: an unknown metric.
    """
    check_metrics([metric])
    names = captions_of(evaluations)
    means = summarise(case_values(evaluations)).groupby([*COLUMN_FIELDS, "holdout", "seed"])[metric].mean()
    sign = 1 if METRICS[metric].higher_is_better else -1
    rows, texts = [], []
    for choice in found.choices:
        values = {
            column: overall([means[(*asdict(column).values(), choice.holdout, seed)] for seed in choice.seeds])
            for column in choice.validation
        }
        value = values[choice.chosen]
        pretended = max(values.values(), key=lambda each: sign * each)
        gain = sign * (pretended - value)
        identity = {f"chosen_{key}": text for key, text in asdict(choice.chosen).items() if key != "operator"}
        rows.append(
            {"operator": choice.operator, "holdout": choice.holdout, "tried": len(values), **identity}
            | {"seeds": len(choice.seeds), "validation": choice.validation[choice.chosen], "metric": metric}
            | {"value": value, "pretended": pretended, "gain": gain}
        )
        numbers = (mean_sd_text(choice.validation[choice.chosen]), mean_sd_text(value), mean_sd_text(pretended))
        counts = (str(len(values)), str(len(choice.seeds)))
        texts.append((choice.operator, choice.holdout, *counts, names[choice.chosen], *numbers, difference_text(gain)))
    heading = METRICS[metric].heading
    columns = ("tried", "runs of each", "chosen", "validation Dice [%]", heading, "best of all tried", "pretended gain")
    notes = (
        "chosen: of the settings tried, that with the highest validation Dice on the source domains, the score that "
        "chose `best`, mean over runs; for each unseen domain from the runs that never saw it, and never by its scores",
        f"pretended gain: by how much {heading} would seem better had the scored cases themselves chosen; nobody could "
        "choose so for a new camera",
        *(f"not used: {line}" for line in found.unused),
        *label_notes(evaluations),
        *recipe_notes(each.meta.column for each in evaluations),
        protocol_note(evaluations[0].meta.protocol),
    )
    title = table_title("Settings tried and chosen, unseen domains", evaluations)
    return Report(pd.DataFrame(rows), Table(title, ("operator", "unseen"), columns, tuple(texts), notes))
