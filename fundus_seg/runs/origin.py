"""What trained the network that a run starts from, and whether the run's holdout was part of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, RunError
from fundus_seg.exchanged import EXCHANGED, is_onnx_folder, read_header
from fundus_seg.progress import Progress
from fundus_seg.protocol import NONE_UNSEEN, SELECTIONS
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.model_names import model_path
from fundus_seg.runs.record import recorded_settings, saw_phantom

HANDED_ON = "origin"
"""The name in the header of a `.safetensors` of what trained its network."""
_CHECKPOINTS = "checkpoints"
_NO_START = "none"
"""Value of the setting `model.start` for a run that does not start from a network."""


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a run starts from, and the domains that trained it or chose it.

    Attributes:
        path: the run or the checkpoint, as it was given.
        digest: 16 hexadecimal digits of the SHA-256 of the checkpoint.
        domains: keys of these domains; None where the checkpoint does not lie in the folder of a run and does not say
            it itself, so that nothing is known.
        data: digest of each of their splits, by `domain/split`.
        phantom: whether a photograph among them is synthetic; None where that is not known.
        shared: number of the holdout's test photographs that trained it or an earlier origin, as far as is recorded.
        origin: what that run started from; None for one that did not start from a network.
    """

    path: str
    digest: str
    domains: tuple[str, ...] | None = None
    data: Mapping[str, str] | None = None
    phantom: bool | None = None
    shared: int = 0
    origin: Origin | None = None

    @property
    def text(self) -> str:
        """`runs/a/seed-0 (digest 0123456789abcdef), trained on A, B, starting from ...`."""
        trained = f"trained on {', '.join(self.domains)}" if self.domains else "of whose training nothing is known"
        phantom = " (with synthetic photographs)" if self.phantom else ""
        before = f", starting from {self.origin.text}" if self.origin else ""
        return f"{self.path} (digest {self.digest}), {trained}{phantom}{before}"


def start_file(start: str) -> Path:
    """The checkpoint that the setting `model.start` names: of a run's folder, its `best`; or the starter.

    Raises:
        CheckpointError: as `model_path`; or it is a network as ONNX, which has no weights to go on with.
    """
    path = model_path(start)
    if is_onnx_folder(path):
        raise CheckpointError(f"{path}: a network as ONNX, which only predicts; give the run that it was exported from")
    return RunFolder(path).checkpoint("best") if path.is_dir() else path


def origin_of(start: str) -> Origin:
    """The origin of a run that starts from the run or checkpoint `start`.

    Raises:
        CheckpointError: there is no such file.
        RunError: the run is not trained to its end, or its config.yaml is damaged.
    """
    path = start_file(start)
    file = path.resolve()  # whose name says how the weights were chosen, not that of a link to it
    run = RunFolder(file.parents[1])
    known = file.parent.name == _CHECKPOINTS and run.config.is_file()
    if Path(start).is_dir() and not run.has("TRAINED"):
        raise RunError(f"{start}: to start from, give a run that is trained to its end, or a checkpoint file")
    try:
        digest = file_digest(path)[:16]
    except OSError as error:
        raise CheckpointError(f"{start}: no such run or checkpoint to start from ({error.strerror})") from error
    if not known:
        said = _handed_on(path) or Origin(start, digest)
        return replace(said, path=start, digest=digest)
    content, config = run.read_config(), recorded_settings(run)
    oracle = SELECTIONS[config.train.selection].cases == "holdout"
    chosen_there = file.stem == "oracle" or (oracle and file.stem in ("best", "average"))
    domains = (*config.data.sources, *(config.unseen if chosen_there else ()))
    data = {where: digest for where, digest in content["inputs"].items() if where.split("/")[0] in domains}
    return Origin(start, digest, domains, data, saw_phantom(content), origin=recorded_origin(content))


def to_hand_on(origin: Origin) -> dict[str, Any]:
    """The origin in plain values, for a file that leaves this machine: with names in place of paths."""
    before = origin.origin and to_hand_on(origin.origin)
    return {**plain(origin), "path": Path(origin.path).name, "origin": before}


def _handed_on(path: Path) -> Origin | None:
    """What a `.safetensors` says of its network's training; None for another file, and for one that says nothing."""
    try:
        said = read_header(path).get(HANDED_ON) if path.suffix == EXCHANGED else None
        return None if said is None else TypeAdapter(Origin).validate_python(said)
    except ValueError as error:  # which pydantic's is
        raise CheckpointError(f"{path}: damaged, what it says of its network's training cannot be read") from error


def plain(origin: Origin) -> dict[str, Any]:
    """The origin in plain values, as `recorded_origin` reads it."""
    values: dict[str, Any] = TypeAdapter(Origin).dump_python(origin, mode="json")
    return values


def recorded_origin(content: Mapping[str, Any]) -> Origin | None:
    """The origin in a run's config.yaml; None for a run that did not start from a network.

    Raises:
        RunError: it is damaged.
    """
    if (recorded := content["provenance"].get("origin")) is None:
        return None
    try:
        return TypeAdapter(Origin).validate_python(recorded)
    except ValidationError as error:
        raise RunError("the origin in a run's config.yaml is damaged; restore the file, or train again") from error


def why_not_unseen(content: Mapping[str, Any]) -> str:
    """Why no domain is unseen by a run's network, in words that follow `a run,`; empty where the holdout is.

    An origin saw the holdout if a domain of the same key trained it, both of patients or both of the phantom, or any of
    the holdout's photographs did. One of whose training nothing is known may have seen it.

    Args:
        content: what the run's config.yaml holds, or will: `holdout`, `model`, `inputs` and `provenance`.

    Raises:
        RunError: its origin is damaged.
    """
    holdout, start = content.get("holdout"), (content.get("model") or {}).get("start", _NO_START)
    if holdout == NONE_UNSEEN:
        return "trained on every domain"
    origin = recorded_origin(content)
    if origin is None and start != _NO_START:
        return f"starting from {start}, of whose training nothing is recorded"
    phantom, tested = saw_phantom(content), content["inputs"].get(f"{holdout}/test")
    while origin:
        if origin.domains is None:
            return f"starting from {origin.path}, of whose training nothing is known"
        same_key = holdout in origin.domains and origin.phantom == phantom
        if same_key or origin.shared or tested in (origin.data or {}).values():
            return f"starting from {origin.path}, which was trained on {holdout}"
        origin = origin.origin
    return ""


def runs_without_unseen(runs: Iterable[RunFolder]) -> dict[RunFolder, str]:
    """The runs by whose networks no domain is unseen, with the reason (`why_not_unseen`)."""
    return {run: why for run in runs if (why := why_not_unseen(run.read_config()))}


def tell_left_out(reasons: Mapping[RunFolder, str], of: str, progress: Progress) -> None:
    """Tell that runs without an unseen domain are left out, a line for each reason.

    Args:
        reasons: as `runs_without_unseen` gives them.
        of: of what they are left out, and what else to do: `of the table of unseen domains; ...`.
        progress: is told.
    """
    for why in dict.fromkeys(reasons.values()):
        progress.left_out("run", f"{why}, {of}", [run.path for run, own in reasons.items() if own == why])
