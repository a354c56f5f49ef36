"""The floors that belong into a table: the mean mask of the source domains of its runs, as `evaluate` has scored it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.errors import RunError, counted
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta, read_evaluation, read_meta
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import MEAN_MASK

WHAT = (
    f"{MEAN_MASK}: the mean of the source domains' true training masks, resized to each case's frame and cut at 0.5; "
    "made without a network, and in no test; a network must score more to have seen anything"
)
"""What the floor is, for a table's notes."""


Place = tuple[str | None, str | None]
"""Structure and unseen domain of a cell; None for all of them."""


@dataclass(frozen=True)
class Floors:
    """The floors of some evaluations.

    Attributes:
        evaluations: each once, however many runs share it.
        of: the floor of each evaluation that has one, by the evaluation's path.
        lacking: paths of the evaluations of runs that have none: an earlier version scored them.
    """

    evaluations: tuple[Evaluation, ...]
    of: Mapping[Path, Evaluation]
    lacking: tuple[Path, ...]

    @property
    def notes(self) -> list[str]:
        """What a table says of its floors, and of those that it lacks."""
        notes = [WHAT] if self.evaluations else []
        if self.lacking:
            total = counted(len(self.of) + len(self.lacking), "evaluation")
            notes.append(
                f"{MEAN_MASK}, the floor, is missing beside {len(self.lacking)} of {total}, {self.lacking[0]} first; "
                "`fundus-seg evaluate` adds it, and trains nothing"
            )
        return notes


def floors_of(evaluations: Sequence[Evaluation]) -> Floors:
    """The floors that lie in the folders of the runs; masks of another tool have none, since nobody knows its sources.

    Runs that share data, size and protocol share a floor: it is told by what its JSON says, and read once.

    Args:
        evaluations: those of a table; floors among them are passed over.
    """
    known: dict[str, Evaluation] = {}
    of: dict[Path, Evaluation] = {}
    lacking = []
    for evaluation in evaluations:
        meta = evaluation.meta
        if meta.external or meta.column.floor:
            continue
        path = RunFolder(evaluation.path.parent.parent).floor(meta.protocol_digest, meta.scored)
        with suppress(RunError):
            there = read_meta(path)
            key = there.model_dump_json(exclude={"versions", "checkpoint_sha256", "cases_sha256"})
            if _belongs(there, meta):
                of[evaluation.path] = known.get(key) or known.setdefault(key, read_evaluation(path))
                continue
        lacking.append(evaluation.path)
    return Floors(tuple(known.values()), of, tuple(lacking))


def floor_means(floors: Floors, metric: str) -> dict[Place, float]:
    """The floor's mean over cases of a metric, by structure and unseen domain; empty where none is known.

    Where runs have several floors on one domain, it is that of the first of the runs.
    """
    means: dict[Place, float] = {}
    for floor in floors.evaluations:
        by_structure = scored_values(floor).groupby("structure")[metric].mean()
        for structure, mean in by_structure.items():
            means.setdefault((str(structure), floor.meta.run.holdout), float(mean))
    return means


def _belongs(floor: EvaluationMeta, scores: EvaluationMeta) -> bool:
    """Whether a floor is of the cases, photographs and protocol that the scores are of."""
    same = {"data", "phantom", "scored", "truth_digest", "protocol_digest"}
    return floor.column.floor and floor.model_dump(include=same) == scores.model_dump(include=same)


def networks(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations without the floors among them."""
    return [each for each in evaluations if not each.meta.column.floor]
