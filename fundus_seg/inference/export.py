"""Write a trained network as a file to hand on; and what is said of a network wherever it is handed on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fundus_seg.errors import UsageError
from fundus_seg.exchanged import EXCHANGED, read_header
from fundus_seg.models.checkpoint import load_network, read_checkpoint
from fundus_seg.models.exchange import PARTS, write_exchange
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.origin import HANDED_ON, origin_of, start_file, to_hand_on

_RECIPE = ("preset", "holdout", "seed", "data", "model", "optim", "train", "scoring", "inputs")
"""What the file says of a run's settings: nothing of the machine, and no path but those that the settings name."""

_OF_RUN = ("settings", "versions")
"""The names of what is said of a run."""


def export_model(model: str | Path, out: Path, about: Mapping[str, str] | None = None) -> Path:
    """Write the network of a run, its `best`, or of a checkpoint, as a `.safetensors` file that `predict` takes.

    The file holds the weights in half precision and, in its header, what the checkpoint says of its use, what
    trained it with the digests of these photographs, and the settings of the run. It loads as any checkpoint does.

    Args:
        model: the run or checkpoint.
        out: the file.
        about: further texts for its header, by name.

    Returns:
        `out`.

    Raises:
        UsageError: `out` does not end in `.safetensors`, or a text has a name that the file uses itself.
        CheckpointError: the checkpoint cannot be read, or a weight is too large for half precision.
        RunError: the run is not trained to its end, or the file cannot be written.
    """
    if out.suffix != EXCHANGED:
        raise UsageError(f"{out}: a network is written as {EXCHANGED}; name the file so")
    path = start_file(str(model))
    content = read_checkpoint(path)
    load_network(path)  # refuses what could not be used
    write_exchange(out, content, handed_on(model, path, about or {}, PARTS))
    return out


def handed_on(model: str | Path, checkpoint: Path, about: Mapping[str, str], others: Collection[str]) -> dict[str, Any]:
    """What is said of a network beside it: what trained it, the settings of its run, and the user's texts.

    Of a file to hand on, what it says itself goes with it.

    Args:
        model: the run or checkpoint, as it was given.
        checkpoint: the file of its weights.
        about: the user's texts, by name.
        others: further names that have a meaning, which no text may have.

    Raises:
        UsageError: a text has a name that has a meaning.
        RunError, CheckpointError: as `origin_of`.
    """
    own = {HANDED_ON: to_hand_on(origin_of(str(model))), **_settings(checkpoint)}
    if taken := sorted({HANDED_ON, *_OF_RUN, *others} & {*about}):
        raise UsageError(f"{', '.join(taken)}: the file uses this name itself; take another")
    before = read_header(checkpoint) if checkpoint.suffix == EXCHANGED else {}
    return {**{name: text for name, text in before.items() if name not in PARTS}, **own, **about}


def _settings(checkpoint: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint lies in; none of one that lies elsewhere."""
    run = RunFolder(checkpoint.resolve().parents[1])
    if checkpoint.resolve().parent.name != "checkpoints" or not run.config.is_file():
        return {}
    recorded = run.read_config()
    values = {key: recorded[key] for key in _RECIPE}, recorded["provenance"]["versions"]
    return dict(zip(_OF_RUN, values, strict=True))
