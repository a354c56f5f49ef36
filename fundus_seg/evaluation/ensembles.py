"""Runs that differ in their seed alone, as one: their networks predict together, and are scored once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fundus_seg.builtins import CheckpointName
from fundus_seg.config import ResolvedRun
from fundus_seg.digests import short_hash
from fundus_seg.errors import RunError
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import RunIdentity, recorded_identity
from fundus_seg.runs.record import checkpoints_made, recorded_settings

_MAKES: dict[CheckpointName, str] = {
    "oracle": "train it anew with --probe-holdout, in another --out",
    "average": "train with --set train.average=ema, swa or swad",
}
"""What to do for a checkpoint that not every run has."""


@dataclass(frozen=True)
class RunEnsemble(RunFolder):
    """Trained runs of one recipe and one holdout, whose networks predict together.

    Their folder is `ensemble-<digest of the seeds>`, beside the first of them; it holds evaluations and overlays, and
    no run. A member that was trained again gets new scores there.

    Attributes:
        members: the runs by their seeds, in order.
    """

    members: Mapping[int, RunFolder] = field(hash=False)

    @classmethod
    def of(cls, members: Mapping[int, RunFolder]) -> RunEnsemble:
        """The ensemble of runs, by their seeds."""
        ordered = {seed: members[seed] for seed in sorted(members)}
        first = next(iter(ordered.values()))
        return cls(first.path.parent / f"ensemble-{short_hash(list(ordered))}", ordered)


def members_of(run: RunFolder) -> list[RunFolder]:
    """The runs of an ensemble; of a run, that one."""
    return list(run.members.values()) if isinstance(run, RunEnsemble) else [run]


def ensembles_of(runs: Iterable[RunFolder], *, progress: Progress = SILENT) -> list[RunEnsemble]:
    """The ensembles of all trained runs that differ in their seed alone.

    Args:
        runs: trained runs.
        progress: told which runs are alone with their recipe, holdout and photographs, and so left out.

    Raises:
        RunError: two runs differ in nothing, or no two differ in their seed alone.
    """
    found: dict[tuple[RunIdentity, str], dict[int, RunFolder]] = {}
    for run in runs:
        content = run.read_config()
        identity = recorded_identity(run, recorded_settings(run), content)
        members = found.setdefault((replace(identity, seed=0), short_hash(content["inputs"])), {})
        if other := members.get(identity.seed):
            raise RunError(
                f"{run.path}: seed {identity.seed} of {identity.name}, holdout {identity.holdout}, as {other.path}; "
                "leave one out"
            )
        members[identity.seed] = run
    alone = [run.path for members in found.values() for run in members.values() if len(members) == 1]
    ensembles = [RunEnsemble.of(members) for members in found.values() if len(members) > 1]
    if not ensembles:
        raise RunError(
            f"{', '.join(map(str, alone[:3]))}: no two runs that differ in their seed alone; train another --seed"
        )
    progress.left_out("run", "alone with its recipe, holdout and photographs", alone, "train another --seed")
    return ensembles


def trained_with(
    runs: Sequence[RunFolder], checkpoint: CheckpointName, *, progress: Progress = SILENT
) -> list[RunFolder]:
    """The runs that were trained with a checkpoint, and the ensembles whose members all were.

    Args:
        runs: trained runs, or ensembles of some.
        checkpoint: the checkpoint.
        progress: told which runs are left out, since they were trained without it.

    Raises:
        RunError: none of the runs was.
    """
    lacking = [run for run in runs if any(checkpoint not in checkpoints_made(each) for each in members_of(run))]
    if lacking and len(lacking) == len(runs):
        missing = members_of(lacking[0])[0].checkpoint(checkpoint)
        raise RunError(f"{missing}: no such checkpoint; {_MAKES[checkpoint]}")
    if lacking:
        paths = [run.path for run in lacking]
        progress.left_out("run", f"trained without the checkpoint {checkpoint}", paths, _MAKES[checkpoint])
    return [run for run in runs if run not in lacking]


def refuse_unlike(
    runs: Sequence[RunFolder], settings: Sequence[tuple[ResolvedRun, Mapping[str, Any]]], *, scoring: bool
) -> None:
    """Refuse runs as one ensemble that saw other photographs than the first, or that are scored otherwise.

    Args:
        runs: the runs.
        settings: the resolved settings of each, and all that its config.yaml holds.
        scoring: whether their own protocols must be one, since the caller names none.

    Raises:
        RunError: the first run that does not fit, and why.
    """
    config, content = settings[0]
    for run, (own, its) in zip(runs, settings, strict=True):
        differing = [where for where in _splits(content) if _splits(content)[where] != _splits(its).get(where)]
        if differing:
            raise RunError(f"{run.path}: made with other photographs than {runs[0].path} ({', '.join(differing)})")
        if scoring and own.scoring != config.scoring:
            raise RunError(
                f"{run.path}: another scoring protocol than {runs[0].path}; take one for all, with --scoring"
            )


def _splits(content: Mapping[str, Any]) -> dict[str, str]:
    return {where: digest for where, digest in content["inputs"].items() if "/" in where}
