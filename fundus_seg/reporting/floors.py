"""The floors and ceilings that belong into a table, as `evaluate` has scored them beside the runs.

A floor is the mean mask of the source domains of a run, a ceiling the agreement of its holdout's readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.errors import RunError, counted
from fundus_seg.evaluation.policy import scored_values
from fundus_seg.evaluation.records import Evaluation, EvaluationMeta, read_evaluation, read_meta
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import MEAN_MASK, READERS

WHAT = (
    f"{MEAN_MASK}: the mean of the source domains' true training masks, resized to each case's frame and cut at 0.5; "
    "made without a network, and in no test; a network must score more to have seen anything"
)
"""What the floor is, for a table's notes."""
CEILING = (
    f"{READERS}: the ceiling, each reader's masks scored against each other one's; mean over pairs and cases, in "
    "brackets the 95 % interval over cases; made without a network, and in no test"
)
"""What the ceiling is, for a table's notes."""

Place = tuple[str | None, str | None]
"""Structure and unseen domain of a cell; None for all of them."""


@dataclass(frozen=True)
class Floors:
    """The floors and ceilings of some evaluations.

    Attributes:
        evaluations: each floor once, however many runs share it.
        of: the floor of each evaluation that has one, by the evaluation's path.
        lacking: paths of the evaluations of runs that have none: an earlier version scored them.
        ceilings: each ceiling once; only domains that keep their readers apart have one.
    """

    evaluations: tuple[Evaluation, ...]
    of: Mapping[Path, Evaluation]
    lacking: tuple[Path, ...]
    ceilings: tuple[Evaluation, ...] = ()

    @property
    def shown(self) -> tuple[Evaluation, ...]:
        """All that stands beside networks in a table."""
        return (*self.evaluations, *self.ceilings)

    @property
    def ceiling_notes(self) -> list[str]:
        """What a table says of its ceilings."""
        if not self.ceilings:
            return []
        counts = []
        for each in self.ceilings:
            cases = each.cases
            readers = ", ".join(sorted({*cases["reader"]}))
            counts.append(f"{each.meta.run.holdout} {counted(cases['case'].nunique(), 'case')} of {readers}")
        return [CEILING, f"{READERS}, cases that two of them or more drew: {'; '.join(counts)}"]

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
    """The floors and ceilings that lie in the folders of runs; for masks of another tool nobody knows the sources.

    Runs that share data, size and protocol share a floor: it is told by what its JSON says, and read once.

    Args:
        evaluations: those of a table; floors and ceilings among them are passed over.
    """
    known: dict[str, Evaluation] = {}
    ceilings: dict[str, Evaluation] = {}
    of: dict[Path, Evaluation] = {}
    lacking = []
    for evaluation in evaluations:
        meta = evaluation.meta
        if meta.external or meta.column.no_network:
            continue
        folder = RunFolder(evaluation.path.parent.parent)
        if meta.scored == "holdout":
            _beside(folder.ceiling(meta.protocol_digest), meta, ceilings)
        if floor := _beside(folder.floor(meta.protocol_digest, meta.scored), meta, known):
            of[evaluation.path] = floor
        else:
            lacking.append(evaluation.path)
    return Floors(tuple(known.values()), of, tuple(lacking), tuple(ceilings.values()))


def _beside(path: Path, scores: EvaluationMeta, known: dict[str, Evaluation]) -> Evaluation | None:
    """What stands there beside some scores, if it belongs to them; `known` holds what was read before."""
    with suppress(RunError):
        there = read_meta(path)
        key = there.model_dump_json(exclude={"versions", "checkpoint_sha256", "cases_sha256"})
        if _belongs(there, scores):
            return known.get(key) or known.setdefault(key, read_evaluation(path))
    return None


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


def _belongs(beside: EvaluationMeta, scores: EvaluationMeta) -> bool:
    """Whether a floor or a ceiling is of the cases, photographs and protocol that the scores are of."""
    same = {"data", "phantom", "scored", "truth_digest", "protocol_digest"}
    return beside.column.no_network and beside.model_dump(include=same) == scores.model_dump(include=same)


def networks(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations without the floors and ceilings among them."""
    return [each for each in evaluations if not each.meta.column.no_network]
