"""One run: train on the source domains, keep the weights that the selection picks, stop and resume anywhere.

The loop is explicit, on Lightning Fabric, which places the network and its batches on the device, or on each of several
devices its share of a batch (`devices.py`). Each epoch reseeds every generator from (seed, epoch), so what a run
computes does not depend on where it was interrupted. Its state is saved now and then (`train.save_every`): on a GPU an
epoch takes less time than writing it.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fundus_seg.builtins import CheckpointName
from fundus_seg.config import ResolvedRun, RunConfig, resolve_sources
from fundus_seg.data.batches import DomainBatches
from fundus_seg.data.layout import DataRoot
from fundus_seg.errors import BusyError, CheckpointError, DataError, RunError, UsageError
from fundus_seg.hardware import gpu_name, machine_choices
from fundus_seg.models import build_model, scale_photographs
from fundus_seg.models.checkpoint import read_checkpoint, write_checkpoint
from fundus_seg.ops.compared.dyconv import set_temperature
from fundus_seg.plugins import blamed
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import write_rows
from fundus_seg.runs.epochs import score
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import identity_of, run_folder
from fundus_seg.runs.lease import leased
from fundus_seg.runs.record import checkpoints_made, record, refuse_lost, take_up, tell_changes
from fundus_seg.seeding import reproducible, seeded
from fundus_seg.training.averages import AVERAGES, Average, renew_norms
from fundus_seg.training.devices import fabric_for
from fundus_seg.training.method import Method
from fundus_seg.training.methods import build_method, state_of
from fundus_seg.training.observer import Observer
from fundus_seg.training.optimiser import build_optimizer
from fundus_seg.training.probe import HoldoutProbe
from fundus_seg.training.run_data import RunData, load_run_data, new_provenance, record_photographs, seen_by_start
from fundus_seg.training.selection import KeptWeights, chosen, validation_dice, weights_state
from fundus_seg.training.snapshots import AffinitySnapshots
from fundus_seg.training.start import check_start, starting_network
from fundus_seg.training.task import check_losses, find_loss, marked, over_annotated

_NORM_BATCHES = 10
"""Batches that renewed statistics of batch norms are computed from, if an epoch has as many."""


@dataclass
class _State:
    """What a run needs, beside its settings and data, to continue after an epoch."""

    network: Any
    optimizer: torch.optim.Optimizer
    method: Method
    average: Average | None = None
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    saved: int = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.epoch


def train(
    config: RunConfig,
    root: DataRoot,
    out: Path,
    *,
    probe: bool = False,
    observers: Sequence[Observer] = (),
    progress: Progress = SILENT,
) -> RunFolder:
    """Train one run below `out`, or resume it where it stopped; a run that is trained already is left as it is.

    Args:
        config: settings.
        root: where the photographs are.
        out: folder of all runs.
        probe: whether the holdout is scored after each epoch, and the weights that score best on it are kept as
            `oracle`; the run itself does not change by a bit.
        observers: called after every epoch; they change nothing of the run.
        progress: where to show it.

    Raises:
        DataError: files that training must not see, all of them listed.
        UsageError: domains that the data root does not hold, or a plugin that cannot be used.
        BusyError: another process is writing into this run.
        RunError: the folder holds another run, or one that was begun with the other value of `probe`; it cannot be
            written; or the loss is no longer finite.
        ConfigError: the folder's config.yaml is damaged.
    """
    planned = resolve_sources(config, root.domains, where=root.path)
    if probe and not planned.unseen:
        raise UsageError(f"--probe-holdout with holdout {planned.holdout}: no domain is unseen; leave it out")
    folder = run_folder(planned, planned.recipe(all_domains=root.experiment), out, phantom=root.phantom)
    start = check_start(planned, begun=folder.begun)
    data = load_run_data(planned, root, progress=progress)
    inputs = {**data.inputs, **start}
    if probe:
        observers = [*observers, HoldoutProbe(root, data.origin, progress=progress)]
    if planned.train.keep_affinity:
        observers = [*observers, AffinitySnapshots()]
    resolved = take_up(folder, planned, inputs, probed=probe, machine=machine_choices)
    tell_changes(folder, gpu_name(), progress)
    if folder.has("TRAINED"):
        refuse_lost(folder, [name for name in checkpoints_made(folder) if name != "last"])  # which no report needs
        progress.line(f"{folder.path}: already trained")
        return folder
    told = {} if folder.begun else new_provenance(planned, data)
    if told and (why := seen_by_start(planned, data, told)):
        progress.warn(f"{why}: {planned.holdout} is not unseen, and no table of holdouts takes the run")
    before, last = folder.stamp(), folder.checkpoint("last")
    with reproducible(resolved.train.threads), fabric_for(resolved.train, _assist, resolved, root, last) as fabric:
        state = _begin(resolved, fabric, resume_from=last)
        refuse_lost(folder, _kept(state.history, resolved))
        with leased(folder.path):  # only now can nothing be wrong with the settings any more
            if folder.stamp() != before:
                raise BusyError(f"{folder.path}: another process has just written here; run the command again")
            for observer in observers:
                observer.on_begin(folder, resolved, state.history)
            record(
                folder,
                resolved,
                inputs,
                identity=identity_of(resolved, root.experiment),
                data_root=root.name,
                phantom=root.phantom,
                probed=probe,
                gpu=gpu_name(),
                told=told,
            )
            if told:
                record_photographs(folder, resolved, data)
            try:
                _fit(folder, resolved, fabric, state, data, observers, progress)
            except KeyboardInterrupt:
                progress.line(
                    f"interrupted in epoch {state.epoch + 1}; the same command goes on after epoch {state.saved}"
                )
                raise
            folder.mark("TRAINED")
    files = [folder.checkpoint(name) for name in ("best", "last", "average")]
    sizes = (f"{path.stem} {path.stat().st_size / 1e6:.1f} MB" for path in files if path.exists())
    progress.line(f"checkpoints, weights only: {', '.join(sizes)}")
    return folder


def _fit(
    folder: RunFolder,
    config: ResolvedRun,
    fabric: Any,
    state: _State,
    data: RunData,
    observers: Sequence[Observer],
    progress: Progress,
) -> None:
    batches = DomainBatches(data.sources, config.train, seed=config.seed, device=fabric.device)
    epochs = config.train.epochs
    best, average = (KeptWeights(folder.checkpoint(name)) for name in ("best", "average"))
    last_save = time.monotonic()
    if state.epoch:
        progress.line(f"{folder.path}: going on after epoch {state.epoch} of {epochs}")
    while state.epoch < epochs:
        started = time.perf_counter()
        losses = _train_epoch(config, fabric, state, batches, progress)
        row = {"epoch": state.epoch + 1, "lr": _rate(config, batches, (state.epoch + 1) * batches.steps - 1)}
        row |= {f"loss_{name}": loss for name, loss in zip(STRUCTURES, losses, strict=True)}
        if not math.isfinite(sum(losses)):
            raise RunError(f"{folder.path}: the loss is no longer finite in epoch {row['epoch']}; lower optim.lr")
        if config.train.norms == "renewed":
            _renew_norms(config, fabric, state.network, batches)
        row |= _validate(folder, config, fabric, data, state.network)
        if averaged := _average(config, fabric, state, batches, row):
            with fabric.autocast():  # as Fabric's wrapper does, which would share the mean with further devices
                row |= _validate(folder, config, fabric, data, averaged, "average_")
        state.epoch += 1
        state.history.append({**row, "seconds": round(time.perf_counter() - started, 3)})
        for observer in observers:
            observer.on_epoch_end(state.history[-1], state.network)
        weights = weights_state(state.network, config, state.epoch, data.origin)
        if chosen(state.history, epochs):
            best.keep(weights)
        if averaged and chosen(state.history, epochs, "average_"):
            average.keep(weights_state(averaged, config, state.epoch, data.origin))
        write_rows(folder.metrics, state.history)
        finished = state.epoch == epochs
        if finished or time.monotonic() - last_save >= config.train.save_every:
            for observer in observers:
                observer.on_save()
            best.save()
            average.save()
            _save(folder, config, state, weights, finished=finished)
            last_save = time.monotonic()
        progress.line(_epoch_line(row, epochs))


def _kept(rows: Sequence[Mapping[str, Any]], config: ResolvedRun) -> list[CheckpointName]:
    """The checkpoints that the epochs of these rows have written, and that a later epoch may not write again."""
    prefixes: dict[CheckpointName, str] = {"best": ""}
    if config.train.average != "none":
        prefixes["average"] = "average_"
    counts = range(1, len(rows) + 1)
    return [
        name
        for name, prefix in prefixes.items()
        if any(chosen(rows[:count], config.train.epochs, prefix) for count in counts)
    ]


def _validate(
    folder: RunFolder, config: ResolvedRun, fabric: Any, data: RunData, network: Any, prefix: str = ""
) -> dict[str, float]:
    """The columns of metrics.csv that say how a network scores on the cases that select; none where there are none."""
    if not data.validation:
        return {}
    dice_of = validation_dice(network, data.validation, threshold=config.scoring.threshold, device=fabric.device)
    if math.isnan(score(dice_of)):
        raise DataError(f"{folder.path}: a structure is empty in every case that selects at this size; add cases")
    return {f"{prefix}dice_{name}": value for name, value in dice_of.items()}


def _average(
    config: ResolvedRun, fabric: Any, state: _State, batches: DomainBatches, row: Mapping[str, Any]
) -> torch.nn.Module | None:
    """The mean of the weights, if there is one to be scored after this epoch, ready for use."""
    if state.average is None:
        return None
    network = state.average.after_epoch(state.network, [*state.history, row])
    if network:
        _renew_norms(config, fabric, network, batches)
    return network


def _renew_norms(config: ResolvedRun, fabric: Any, network: torch.nn.Module, batches: DomainBatches) -> None:
    """Renew the statistics of batch norms by the same few batches after any epoch, drawn as for training.

    With more batches, a run that does so after each epoch would become slow.
    """
    some = itertools.islice(batches.epoch(config.train.epochs), _NORM_BATCHES)
    with seeded(config.seed, config.train.epochs, "norms"), fabric.autocast():
        images = (fabric.to_device(batch.images) for batch in some)
        renew_norms(network, (_input(config, each) for each in images))


def _assist(fabric: Any, config: ResolvedRun, root: DataRoot, resume_from: Path) -> _State:
    """The work of each further process of a run: its share of each step, from the same start; it writes nothing.

    The checkpoint cannot have changed since the first process read it: setting up the network waits for all.
    """
    data = load_run_data(config, root)
    with reproducible(config.train.threads):
        state = _begin(config, fabric, resume_from)
        batches = DomainBatches(data.sources, config.train, seed=config.seed)
        while state.epoch < config.train.epochs:
            _train_epoch(config, fabric, state, batches, SILENT)
            state.epoch += 1
    return state


def _begin(config: ResolvedRun, fabric: Any, resume_from: Path) -> _State:
    """A run at its start, or after its last whole epoch."""
    there = read_checkpoint(resume_from) if resume_from.exists() else None
    with seeded(config.seed, 0, "initialisation"):
        network = build_model(**config.network_spec()) if there else starting_network(config)
    if config.model.freeze == "encoder":
        network.encoder.freeze()
    optimizer = build_optimizer(network, config.optim)
    network.to(memory_format=_memory_format(config))  # type: ignore[call-overload]
    average = None
    if config.train.average != "none" and fabric.is_global_zero:
        plain = copy.deepcopy(network).to(fabric.device)  # without the hooks of a method
        average = AVERAGES[config.train.average](plain, config.train)
    method = build_method(config.train.method)
    with blamed(config.train.method):
        method.attach(network)
    network, optimizer = fabric.setup(network, optimizer)
    if there is None:
        return _State(network, optimizer, method, average)
    try:
        network.load_state_dict(there["model"])
        state = _State(network, optimizer, method, average, there["epoch"], there["history"])
        if state.epoch < config.train.epochs:  # the last epoch leaves out what only training needs
            optimizer.load_state_dict(there["optimizer"])
            if average:
                average.load_state_dict(there["average"])
            with blamed(config.train.method):
                method.restore(there.get("method", {}))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{resume_from}: not of this run; delete {resume_from.parents[1]} and train again"
        ) from error
    return state


def _train_epoch(
    config: ResolvedRun, fabric: Any, state: _State, batches: DomainBatches, progress: Progress
) -> list[float]:
    """Mean loss of each structure over one epoch."""
    loss_of = find_loss(config.train.loss)
    if batches.partial:
        loss_of = over_annotated(loss_of)
    state.network.train()
    set_temperature(state.network, config.train.temperature_at(state.epoch))
    total = torch.zeros(len(STRUCTURES), device=fabric.device)
    shown = _dice_text(state.history[-1]) if state.history else {}
    task = progress.task(f"epoch {state.epoch + 1}/{config.train.epochs}", total=batches.steps)
    with seeded(config.seed, state.epoch, "epoch"), task as advance:
        for step, whole in enumerate(batches.epoch(state.epoch), start=state.epoch * batches.steps):
            batch = whole.slice(fabric.global_rank, config.train.devices)
            images, masks = fabric.to_device((batch.images, marked(batch.masks, batch.annotated)))
            with blamed(config.train.method):
                images, masks = state.method.batch(images, masks, batch.domains, step)
            logits = state.network(_input(config, images))
            with blamed(config.train.method):
                losses = state.method.loss(loss_of, logits, masks, batch.domains, step)
            check_losses(config.train.method, losses)
            state.optimizer.zero_grad()
            fabric.backward(losses.mean())
            for group in state.optimizer.param_groups:
                group["lr"] = _rate(config, batches, step)
            state.optimizer.step()
            if state.average:
                state.average.after_step(state.network)
            total += losses.detach()
            advance(**{f"loss {name}": value.detach() for name, value in zip(STRUCTURES, losses, strict=True)}, **shown)
    return (fabric.all_reduce(total) / batches.steps).tolist()


def _rate(config: ResolvedRun, batches: DomainBatches, step: int) -> float:
    return config.optim.lr_at(step, steps=batches.steps, epochs=config.train.epochs)


def _input(config: ResolvedRun, images: Tensor) -> Tensor:
    return scale_photographs(images).to(memory_format=_memory_format(config))


def _memory_format(config: ResolvedRun) -> torch.memory_format:
    return torch.channels_last if config.train.channels_last else torch.contiguous_format


def _save(folder: RunFolder, config: ResolvedRun, state: _State, weights: Mapping[str, Any], *, finished: bool) -> None:
    """Write `last`, after all else: a run that is killed before repeats the epochs since its last save."""
    last = {**weights, "history": state.history}
    if not finished:
        last["optimizer"] = state.optimizer.state_dict()
        if state.average:
            last["average"] = state.average.state_dict()
        if kept := state_of(config.train.method, state.method):
            last["method"] = kept
    write_checkpoint(folder.checkpoint("last"), last)
    state.saved = state.epoch


def _dice_text(row: Mapping[str, Any]) -> dict[str, str]:
    """The Dice of the network, then that of the mean of its weights, where there is one."""
    return {
        f"Dice {name}{whose}": f"{100 * row[f'{prefix}dice_{name}']:.1f}"
        for prefix, whose in (("", ""), ("average_", " (average)"))
        for name in STRUCTURES
        if f"{prefix}dice_{name}" in row
    }


def _epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    losses = "  ".join(f"loss {name} {row[f'loss_{name}']:.4f}" for name in STRUCTURES)
    return f"epoch {row['epoch']}/{epochs}  {losses}" + "".join(f"  {k} {v}" for k, v in _dice_text(row).items())
