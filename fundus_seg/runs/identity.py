"""Which run it is, as data: its identity, the column of a table that it belongs to, and its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import total_ordering
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fundus_seg.builtins import OPERATORS
from fundus_seg.config import PlannedRun, ResolvedRun
from fundus_seg.errors import RunError, UsageError
from fundus_seg.runs.folder import RunFolder

UNKNOWN = "unknown"
"""Preset, precision and selection of masks that another tool made."""
BEST_OF = "best-of-"
"""How the recipe of runs begins whose settings were chosen from several for each unseen domain: `best-of-4`."""
MEAN_MASK = "mean-mask"
"""What stands where a run has its operator, for the mean mask of the source domains: the floor of every table."""
READERS = "readers"
"""What stands where a run has its operator, for the readers of a domain scored against each other: the ceiling."""
_BESIDE_NETWORKS = {MEAN_MASK: "mean mask of the source domains", READERS: "agreement of readers"}
NO_NETWORK = "none"
"""Preset, precision and selection of the mean mask and of readers, which no network predicts."""


@total_ordering
@dataclass(frozen=True)
class Column:
    """Runs that belong together in a table: they differ in holdout and seed alone.

    Columns are ordered by operator: the floor, the ceiling, the built-in ones in the order of `OPERATORS`, the others;
    and by the other fields.

    Attributes:
        operator: the operator's name, or that of the tool that made the masks.
        recipe: short name of the settings that differ from the preset; empty where none does.
        preset: name of the preset.
        precision: precision of the training.
        selection: how the checkpoint was chosen.
    """

    operator: str
    recipe: str
    preset: str
    precision: str
    selection: str

    def __lt__(self, other: Column) -> bool:
        return self._key < other._key

    @property
    def _key(self) -> tuple[int, str, str, str, str, str]:
        builtin = list(OPERATORS)
        rank = builtin.index(self.operator) if self.operator in builtin else len(builtin)
        first = {MEAN_MASK: -2, READERS: -1}.get(self.operator, rank) if self.no_network else rank
        return (first, self.operator, self.recipe, self.preset, self.precision, self.selection)

    @property
    def name(self) -> str:
        """The operator and, behind a dash, the recipe."""
        return operator_name(self.operator, self.recipe)

    @property
    def external(self) -> bool:
        """Whether another tool made the masks, of whose training nothing is known."""
        return self.preset == UNKNOWN

    @property
    def searched(self) -> bool:
        """Whether its settings were chosen from several, for each unseen domain its own."""
        return self.recipe.startswith(BEST_OF)

    @property
    def no_network(self) -> bool:
        """Whether it is the floor or the ceiling, which stand beside the scores and are in no test."""
        return self.preset == NO_NETWORK

    @property
    def floor(self) -> bool:
        """Whether it is the mean mask of the source domains, made without a network."""
        return self.no_network and self.operator == MEAN_MASK


COLUMN_FIELDS = tuple(field.name for field in fields(Column))
"""The columns of a data frame that say which `Column` a row belongs to."""


@dataclass(frozen=True, order=True)
class RunIdentity:
    """Which run it is. It is computed once, when the run begins, and recorded with its settings and its scores.

    Attributes are those of `Column` without the selection, then `holdout`, the unseen domain, and `seed`.
    """

    operator: str
    recipe: str
    preset: str
    precision: str
    holdout: str
    seed: int

    @property
    def name(self) -> str:
        """The operator and, behind a dash, the recipe: the name of the run's folder."""
        return operator_name(self.operator, self.recipe)

    def column(self, selection: str) -> Column:
        """The column of the run's checkpoint that `selection` chose."""
        return Column(self.operator, self.recipe, self.preset, self.precision, selection)


def identity_of(config: ResolvedRun, experiment: Iterable[str]) -> RunIdentity:
    """The identity of a run that begins now.

    Args:
        config: resolved settings.
        experiment: every domain of the data root; the recipe names the domains of a run that takes part of them.
    """
    return _identity(config, config.recipe(all_domains=experiment))


def recorded_identity(run: RunFolder, config: ResolvedRun, content: Mapping[str, Any]) -> RunIdentity:
    """The identity of a run that is there: as it was recorded, whatever has become of the data root since.

    Runs of earlier versions recorded none: theirs follows from their settings; the name of their folder says whether
    their data root held more domains.

    Args:
        run: its folder.
        config: its settings.
        content: all that its config.yaml holds.

    Raises:
        RunError: a recorded identity that is damaged.
    """
    if (recorded := content.get("identity")) is not None:
        try:
            return TypeAdapter(RunIdentity).validate_python(recorded)
        except ValidationError as error:
            raise RunError(f"{run.config}: its identity is damaged; restore the file, or train again") from error
    whole, part = config.recipe(all_domains=(config.holdout, *config.data.sources)), config.recipe(all_domains=())
    took_part = run.path.parent.name == operator_name(config.operator, part)  # of an experiment with more domains
    return _identity(config, part if took_part else whole)


def floor_identity(config: PlannedRun) -> RunIdentity:
    """The identity of the mean mask that belongs to a run: equal for all runs that share domains, size and holdout.

    Its recipe names the domains, holdout included, and the size; so it is the same for every holdout of an experiment.
    """
    domains = "+".join(sorted({config.holdout, *config.data.sources}))
    recipe = f"domains={domains}-size={config.data.size}"
    return RunIdentity(MEAN_MASK, recipe, NO_NETWORK, NO_NETWORK, config.holdout, seed=0)


def ceiling_identity(holdout: str) -> RunIdentity:
    """The identity of the agreement of a domain's readers."""
    return RunIdentity(READERS, "", NO_NETWORK, NO_NETWORK, holdout, seed=0)


def run_folder(config: PlannedRun, recipe: str, out: Path, *, phantom: bool) -> RunFolder:
    """The folder of a run below `out`; runs on the phantom have a folder of their own.

    Args:
        config: settings, sources named.
        recipe: what differs from the preset (`RunConfig.recipe`).
        out: folder of all runs.
        phantom: whether the photographs are synthetic.
    """
    base = out / "phantom" if phantom else out
    return RunFolder(
        base / config.preset / config.holdout / operator_name(config.operator, recipe) / f"seed-{config.seed}"
    )


def _identity(config: ResolvedRun, recipe: str) -> RunIdentity:
    return RunIdentity(config.operator, recipe, config.preset, config.train.precision, config.holdout, config.seed)


def check_free(name: str, fix: str) -> None:
    """Refuse a name that reads like that of the floor or the ceiling, in whatever spelling: no column may pass for one.

    Args:
        name: what a column is to be called.
        fix: what else to do.

    Raises:
        UsageError: it is such a name.
    """
    for taken, what in _BESIDE_NETWORKS.items():
        if re.sub(r"[\W_]", "", name).casefold() == taken.replace("-", ""):
            raise UsageError(f"'{name}' is what tables call the {what}: {fix}")


def operator_name(operator: str, recipe: str) -> str:
    """The operator and, behind a dash, what its recipe changes: so folders and tables name it."""
    return f"{operator}-{recipe}" if recipe else operator
