"""Write a trained network as a file to hand on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fundus_seg.errors import UsageError
from fundus_seg.exchanged import EXCHANGED
from fundus_seg.models.checkpoint import load_network, read_checkpoint
from fundus_seg.models.exchange import PARTS, write_exchange
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.origin import HANDED_ON, origin_of, start_file, to_hand_on

_RECIPE = ("preset", "holdout", "seed", "data", "model", "optim", "train", "scoring", "inputs")
"""What the file says of a run's settings: nothing of the machine, and no path but those that the settings name."""


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
    said = {HANDED_ON: to_hand_on(origin_of(str(model))), **_settings(path)}
    if taken := sorted({*said, *PARTS} & {*(about or {})}):
        raise UsageError(f"{', '.join(taken)}: the file uses this name itself; take another")
    write_exchange(out, content, {**said, **(about or {})})
    return out


def _settings(checkpoint: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint lies in; none of one that lies elsewhere."""
    run = RunFolder(checkpoint.resolve().parents[1])
    if checkpoint.resolve().parent.name != "checkpoints" or not run.config.is_file():
        return {}
    recorded = run.read_config()
    return {"settings": {key: recorded[key] for key in _RECIPE}, "versions": recorded["provenance"]["versions"]}
