"""Measure what the kernels of trained networks learned of position, and keep it beside their runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast, get_args

from fundus_seg.builtins import CheckpointName
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, RunError, UntrustedError
from fundus_seg.evaluation.ensembles import trained_with
from fundus_seg.evaluation.runs import tell_untrusted
from fundus_seg.exchanged import is_onnx_folder
from fundus_seg.models.checkpoint import load_network
from fundus_seg.models.positions import measure_layers
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import chosen_by
from fundus_seg.runs.folder import RunFolder, trained_runs
from fundus_seg.runs.identity import UNKNOWN, Column, recorded_identity
from fundus_seg.runs.kernels import LayerKernels, RunKernels, kernels_file, read_kernels, write_kernels
from fundus_seg.runs.model_names import model_path
from fundus_seg.runs.record import recorded_settings, saw_phantom

_CHECKPOINTS = get_args(CheckpointName)
_UNPOSITIONAL = "has no kernel for each position"
_POSITIONAL = "give runs of tvconv, linear or untied, or with an encoder such as tvconv-mobilenetv2-0.5"


def measure_kernels(
    models: Sequence[str | Path], *, checkpoint: CheckpointName = "best", progress: Progress = SILENT
) -> list[RunKernels]:
    """Measure every network that has a kernel for each position, or read what was measured of it before.

    What is measured of a run is kept in its folder, kernels/<checkpoint>.npz, with the digest of the checkpoint: as
    long as that is the same, it is not measured again. Nothing is kept of a checkpoint file.

    Args:
        models: runs, folders with runs below, checkpoint files (`.ckpt`, `.safetensors`), and names of models.
        checkpoint: which checkpoint of each run.
        progress: shows what is done, and is told of runs that are left out: those that failed or are not trained to
            their end, have no such checkpoint, know no position, or whose operator the caller has not loaded.

    Returns:
        One `RunKernels` for each network, ordered by operator, unseen domain and seed.

    Raises:
        RunError: there is no such run, or none whose operator has a kernel for each position.
        CheckpointError: a checkpoint is missing, damaged, or exported as ONNX, where kernels are constants.
    """
    networks = [*_networks(list(map(model_path, models)), checkpoint, progress)]
    found: list[RunKernels] = []
    untrusted: list[tuple[Path, UntrustedError]] = []
    with progress.task("measuring kernels", total=len(networks)) as advance:
        for model, name in networks:
            try:
                found.append(_measured_run(model, name) if isinstance(model, RunFolder) else _measured_file(model))
            except UntrustedError as error:
                untrusted.append((model.path if isinstance(model, RunFolder) else model, error))
            advance()
    tell_untrusted(untrusted, progress, alone=not found)
    without = [each for each in found if not each.layers]
    if len(without) == len(found):
        one = without[0]
        raise RunError(f"{one.path}: operator {one.column.operator} {_UNPOSITIONAL}; {_POSITIONAL}")
    progress.left_out("network", f"whose operator {_UNPOSITIONAL}", [each.path for each in without], _POSITIONAL)
    positional = [each for each in found if each.layers]
    return sorted(positional, key=lambda each: (each.column, each.holdout, each.seed, str(each.path)))


def _networks(
    paths: Sequence[Path], checkpoint: CheckpointName, progress: Progress
) -> Iterator[tuple[RunFolder | Path, CheckpointName]]:
    """The runs and checkpoint files at some paths, with the name of the checkpoint that is measured of each run.

    A checkpoint file in the folder of a run stands for the run, so that its unseen domain and seed are known.
    """
    for path in paths:
        if is_onnx_folder(path):
            raise CheckpointError(
                f"{path}: a baked network, whose affinity maps are gone; give the run that it was exported from"
            )
    if folders := [path for path in paths if not path.is_file()]:
        for run in trained_with(trained_runs(folders, progress=progress), checkpoint, progress=progress):
            yield run, checkpoint
    for path in (path for path in paths if path.is_file()):
        of_run, name = RunFolder(path.parent.parent), path.stem
        if path == of_run.checkpoint(name) and name in _CHECKPOINTS and of_run.config.is_file():
            yield of_run, cast(CheckpointName, name)
        else:
            yield path, "best"


def _measured_run(run: RunFolder, checkpoint: CheckpointName) -> RunKernels:
    content, config = run.read_config(), recorded_settings(run)
    identity = recorded_identity(run, config, content)
    return RunKernels(
        run.path,
        identity.column(chosen_by(config.train.selection, checkpoint)),
        identity.holdout,
        identity.seed,
        saw_phantom(content),
        checkpoint,
        _layers(run, checkpoint),
    )


def _layers(run: RunFolder, checkpoint: CheckpointName) -> tuple[LayerKernels, ...]:
    """The layers of a run's network, as kept if they were measured of these very weights, or else measured now."""
    weights, kept = run.checkpoint(checkpoint), kernels_file(run, checkpoint)
    if not weights.is_file():
        raise CheckpointError(f"{weights}: the checkpoint is gone; restore it, or delete the run and train again")
    digest = file_digest(weights)
    with contextlib.suppress(RunError):  # there is none, or it is damaged, and is then made anew
        layers, of = read_kernels(kept)
        if of == digest:
            return layers
    network, _ = load_network(weights)
    layers = measure_layers(network)
    if layers:
        write_kernels(kept, layers, digest=digest)
    return layers


def _measured_file(path: Path) -> RunKernels:
    network, usage = load_network(path)
    column = Column(str(network.spec["op"]), "", UNKNOWN, UNKNOWN, UNKNOWN)
    return RunKernels(path, column, UNKNOWN, 0, bool(usage.get("phantom")), path.stem, measure_layers(network))
