"""The card of a network that was trained on every domain: what it is, what it saw, and what is known of new cameras."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fundus_seg.config import ResolvedRun
from fundus_seg.errors import ProtocolError, RunError, counted
from fundus_seg.evaluation.records import Evaluation, read_evaluation
from fundus_seg.protocol import NONE_UNSEEN, SELECTIONS
from fundus_seg.reporting.in_domain import in_domain_table
from fundus_seg.reporting.tables import score_table
from fundus_seg.runs.atomic import write_text
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import RunIdentity, recorded_identity
from fundus_seg.runs.origin import recorded_origin, runs_without_unseen
from fundus_seg.runs.record import recorded_settings, saw_phantom

_PHANTOM = "**Synthetic photographs (the phantom) trained this network: its scores say nothing about patients.**"
_METRICS = ("dsc", "hd95")


def write_card(run: RunFolder) -> Path | None:
    """Write `card.md` into the folder of a run that was trained on every domain; None for another run.

    It quotes the table of the runs of the same recipe that leave one domain out, if they lie beside the run, below the
    folder of its preset, as `fundus-seg benchmark` puts them; written again, it has what was scored meanwhile.

    Raises:
        RunError: the run is damaged, or the card cannot be written.
    """
    config, content = recorded_settings(run), run.read_config()
    if config.holdout != NONE_UNSEEN:
        return None
    identity = recorded_identity(run, config, content)
    lines = [
        f"# {identity.name}: a network of every domain",
        "Research software, not a medical device. It draws the optic disc and the optic cup in photographs that are "
        "framed as those below.",
    ]
    if _phantom(content):
        lines.append(_PHANTOM)
    lines += ["## What trained it", _training(config, content, identity), "## What is known of unseen cameras"]
    lines += _unseen(run, config, content, identity)
    lines += ["## In-domain", *_in_domain(run, config)]
    path = run.path / "card.md"
    write_text(path, "\n\n".join(line.rstrip() for line in lines) + "\n")
    return path


def _phantom(content: Mapping[str, Any]) -> bool:
    """Whether a synthetic photograph trained the run, or a network that it starts from."""
    origin, found = recorded_origin(content), saw_phantom(content)
    while origin:
        found, origin = found or bool(origin.phantom), origin.origin
    return found


def _training(config: ResolvedRun, content: Mapping[str, Any], identity: RunIdentity) -> str:
    told, inputs = content["provenance"], content["inputs"]
    photographs, framing = told.get("photographs") or {}, told.get("framing")
    rows = [
        f"| {key} | {photographs.get(key, 'unknown')} | {inputs[f'{key}/train']} | {inputs[f'{key}/test']} |"
        for key in config.data.sources
    ]
    weights, digest = config.model.encoder_weights, inputs.get("encoder_weights", "not recorded")
    start = {"none": "random"}.get(weights, f"encoder {config.model.encoder} from {weights} (digest {digest})")
    if origin := recorded_origin(content):
        start = f"the network of {origin.text}"
    table = ["| domain | training photographs | digest, train | digest, test |", "|---|---:|---|---|", *rows]
    rule = config.train.selection
    chosen = f"was chosen by {rule}, on the half `select` of the test photographs"
    if SELECTIONS[rule].cases is None:
        chosen = "is that of the last epoch"
    seen = f"{framing['low']} to {framing['high']} of the side" if framing else "not recorded"
    medians = [f"{key} {own['median']}" for key, own in (told.get("framings") or {}).items()]
    seen += f" (median {', '.join(medians)})" if medians else ""
    facts = [
        f"preset {identity.preset}, recipe {identity.recipe or 'of the preset'}, seed {identity.seed}, "
        f"{counted(config.train.epochs, 'epoch')}, {identity.precision}",
        f"its checkpoint `best` {chosen}",
        f"it started from: {start}",
        f"framing, diameter of the disc in the frame: {seen}; `fundus-seg predict` warns of others",
    ]
    return "\n".join([*table, "", *(f"- {fact}" for fact in facts)])


def _unseen(run: RunFolder, config: ResolvedRun, content: Mapping[str, Any], identity: RunIdentity) -> Iterator[str]:
    """The table of the runs of the same recipe that leave a domain out, or that there is none."""
    yield "No unseen score is claimed for this network: it has seen every domain of its data."
    beside, unread = _beside(run, config, identity)
    same = [each for each in beside if _same_data(each, content["inputs"])]
    if unread:
        yield f"Left out, since they are damaged: the scores of {counted(len(unread), 'run')}, first {unread[0]}."
    if len(same) < len(beside):
        yield f"Left out, since their photographs or masks are not the same: {counted(len(beside) - len(same), 'run')}."
    if not same:
        yield (
            "Nor are there runs of the same recipe beside it that leave one domain out and are scored: `fundus-seg "
            "benchmark` with the same settings makes them, and `fundus-seg evaluate` of this run writes the card again."
        )
        return
    holdouts = {each.meta.run.holdout for each in same}
    if lacking := [domain for domain in config.data.sources if domain not in holdouts]:
        yield f"No run of the same recipe leaves out {', '.join(lacking)}."
    try:
        table = str(score_table(same, _METRICS))
    except ProtocolError as error:
        yield f"The scores of the same recipe, trained without one domain, cannot stand in one table: {error}."
    else:
        yield "The same recipe, trained without one domain and scored on it:"
        yield table


def _beside(run: RunFolder, config: ResolvedRun, identity: RunIdentity) -> tuple[list[Evaluation], list[Path]]:
    """The scores, by the run's own protocol, of the runs below the folder of its preset that are of its recipe.

    Returns:
        The scores, and the files of those that cannot be read.
    """
    found: list[Evaluation] = []
    unread: list[Path] = []
    above = [*run.path.resolve().parents][:3]  # its recipe, its holdout, its preset
    records = f"seed-*/evaluations/{config.scoring.digest()}-best.csv"
    for path in sorted(above[-1].glob(f"*/{glob.escape(above[0].name)}/{records}")):
        try:
            evaluation = read_evaluation(path)
            if runs_without_unseen([RunFolder(path.parents[1])]):
                continue
        except RunError:
            unread.append(path)
            continue
        if replace(evaluation.meta.run, holdout=identity.holdout, seed=identity.seed) == identity:
            found.append(evaluation)
    return found, unread


def _same_data(evaluation: Evaluation, inputs: Mapping[str, str]) -> bool:
    """Whether each split that both have read is the same in both."""
    data = evaluation.meta.data
    return all(inputs[where] == digest for where, digest in data.items() if where in inputs)


def _in_domain(run: RunFolder, config: ResolvedRun) -> Iterator[str]:
    path = run.evaluation(config.scoring.digest(), "best-in-domain")
    try:
        yield str(in_domain_table([read_evaluation(path)], _METRICS))
    except RunError:
        yield "Not scored yet: `fundus-seg evaluate` of this run scores it."
