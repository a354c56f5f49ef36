"""Which of a command's arguments are models, and which networks they stand for. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fundus_seg.data.listing import PHOTOGRAPHS, is_dicom
from fundus_seg.data.names import suffix_of
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError, counted
from fundus_seg.exchanged import CARD, EXCHANGED, WEIGHTS, is_onnx_folder
from fundus_seg.inference.calibration import Calibration, calibration_of
from fundus_seg.inference.onnx_folder import read_card
from fundus_seg.progress import SILENT, Progress
from fundus_seg.runs.folder import RunFolder, find_runs, trained_runs
from fundus_seg.runs.model_names import is_model_name, model_path

_ARCHIVE = b"PK\x03\x04"
"""How a checkpoint begins, and no photograph does."""


@dataclass(frozen=True)
class Member:
    """One network.

    Attributes:
        path: the run or checkpoint, as it was given or found.
        checkpoint: the file of its weights; of an ONNX folder the `model.json`, which has the digest of the graph.
        digest: SHA-256 of that file.
        calibration: the temperatures of its run, if it is calibrated.
    """

    path: Path
    checkpoint: Path
    digest: str
    calibration: Calibration | None


def models_and_photographs(arguments: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """The models at the front of a command's arguments, and the photographs and folders of photographs behind them.

    The first argument is a model, whatever it is. A further one is a model if it is the name of one (`model_names`), a
    checkpoint by its first bytes or its suffix, the folder of a run or of an exported network, or a folder with runs
    below it and no photograph in it.

    Raises:
        CheckpointError: as `model_path`.
        UsageError: no photograph is given, or a model stands behind one.
    """
    count = 1
    while count < len(arguments) and is_model(arguments[count]):
        count += 1
    models = [model_path(each) for each in arguments[:count]]
    if not arguments[count:]:
        last = models[-1]
        raise UsageError(
            f"{last}: a model, and no photograph behind it; give photographs, or folders of photographs, after the "
            "models"
        )
    for each in arguments[count:]:
        if is_model(each):
            raise UsageError(f"{each}: a model behind {arguments[count]}, a photograph; give all models first")
    return models, [Path(each) for each in arguments[count:]]


def is_model(given: str | Path) -> bool:
    """Whether it names a model, or is a checkpoint or a folder of a run, of an exported network, or of runs alone.

    A folder in which there are photographs beside the runs is not one of runs alone.
    """
    if is_model_name(str(given)):
        return True
    path = Path(given)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return path.suffix == EXCHANGED or file.read(len(_ARCHIVE)) == _ARCHIVE
        if _is_run(path) or is_onnx_folder(path) or (path / WEIGHTS).is_file():
            return True
        if not path.is_dir() or any(_is_photograph(file) for file in path.iterdir()):
            return False
        return any(_is_run(run.path) for run in find_runs([path], least=0))
    except OSError:  # what cannot be read is told where photographs are read
        return False


def find_members(models: Sequence[str | Path], *, progress: Progress = SILENT) -> tuple[Member, ...]:
    """The networks that models stand for, in the order of their digests: in any order given, the same.

    Args:
        models: runs, of which the checkpoint `best` is taken; checkpoints; folders, whose trained runs are taken; and
            names of models.
        progress: told which runs below a folder are left out, and which networks predict together.

    Raises:
        CheckpointError: a path does not exist, or cannot be read; or as `model_path`.
        UsageError: a network is given twice.
    """
    paths: list[Path] = []
    for model in map(model_path, models):
        if not model.exists():
            raise CheckpointError(f"{model}: no such run or checkpoint")
        alone = not model.is_dir() or _is_run(model) or is_onnx_folder(model)
        below = [] if alone else trained_runs([model], least=0, progress=progress)
        paths += [run.path for run in below] or [model]
    members: dict[str, Member] = {}
    for path in paths:
        member = _member(path)
        other = members.setdefault(member.digest, member)
        if other is not member:
            raise UsageError(f"{path}: the same network as {other.path}; give each network once")
    ordered = tuple(members[digest] for digest in sorted(members))
    if len(ordered) > 1:
        named = ", ".join(str(member.path) for member in members.values())
        progress.line(f"the mean of {counted(len(ordered), 'network')} predicts: {named}")
    return ordered


def warn_of_mirroring(one_sided: Iterable[str | None], progress: Progress) -> None:
    """Warn of operators and encoders that know one side of a photograph from the other, untrained for its mirror."""
    if named := ", ".join(sorted({part for part in one_sided if part})):
        progress.warn(
            f"--views flip with {named}, which knows the left side of a photograph from the right, and was trained on "
            "no mirrored one: the mirrored view is sound only as far as the training photographs show left and right "
            "eyes alike"
        )


def _is_photograph(path: Path) -> bool:
    return suffix_of(path.name) in PHOTOGRAPHS or (path.is_file() and is_dicom(path))


def _is_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return run.checkpoint("best").is_file() or run.begun


def _member(path: Path) -> Member:
    if is_onnx_folder(path):
        calibration = read_card(path).calibration
        return Member(path, path / CARD, file_digest(path / CARD), calibration)
    checkpoint = RunFolder(path).checkpoint("best") if path.is_dir() else path
    try:
        digest = file_digest(checkpoint)
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be read ({error.strerror}); give the folder of a trained run, seed-N, or a "
            "checkpoint"
        ) from error
    return Member(path, checkpoint, digest, calibration_of(checkpoint, digest))
