"""`fundus-seg train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from fundus_seg.builtins import Tracker
from fundus_seg_cli.console import print_data
from fundus_seg_cli.options import Config, Data, Operator, Out, Overrides, ProbeHoldout, Strict, Trackers

if TYPE_CHECKING:
    from fundus_seg_cli.progress import Terminal


def train(
    holdout: Annotated[
        str | None,
        typer.Option(
            help="Unseen domain: A, B, C or D, or a key of your own YAML file. none: train on every domain, for use on "
            "new cameras; no unseen score is claimed."
        ),
    ] = None,
    op: Operator = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN|CHECKPOINT",
            help="Start from the whole network of a trained run (its best) or of a checkpoint.",
        ),
    ] = None,
    data: Data = None,
    config: Config = "paper",
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (default: 0).")] = None,
    out: Out = Path("runs"),
    probe_holdout: ProbeHoldout = False,
    track: Trackers = None,
    strict: Strict = False,
) -> None:
    """Train on every domain but one, or on all. The same command again goes on with an interrupted run."""
    from fundus_seg.config import load_config, recorded_provenance, resolve_sources
    from fundus_seg.data import open_root
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    arguments = {"holdout": holdout, "model.op": op, "model.start": start, "seed": seed}
    settings = load_config(config, overrides=overrides or [], arguments=arguments)
    recorded = recorded_provenance(config)  # not empty where `config` is the config.yaml of a run to repeat
    progress = Terminal()
    for name in settings.plugins().values():
        load(name)
    least = 2 if settings.unseen else 1
    root = open_root(data or recorded.get("data_root"), least=least, progress=progress)
    resolve_sources(settings, root.domains, where=root.path)
    progress.check(strict=strict)  # before the hours of training

    from fundus_seg.hardware import gpu_name
    from fundus_seg.runs.provenance import changes
    from fundus_seg.training import train as train_run  # torch and lightning, only once the arguments are right
    from fundus_seg.training.tracking import tracker

    for change in changes(recorded, gpu_name()) if recorded else ():
        progress.line(f"warning: {config}: {change}; the bits may differ")
    trackers = [tracker(cast(Tracker, each)) for each in track or []]
    observers = [_Start(progress, strict), *trackers]
    run = train_run(settings, root, out, probe=probe_holdout, observers=observers, progress=progress)
    if not settings.unseen:
        from fundus_seg.reporting import write_card

        progress.line(f"card of the network: {write_card(run)}")
    print_data(run.path)
    progress.check(strict=strict)


class _Start:
    """Stops a strict run before its first epoch, if its photographs and masks gave a warning."""

    def __init__(self, progress: Terminal, strict: bool) -> None:
        self.progress = progress
        self.strict = strict

    def on_begin(self, *_: Any) -> None:
        """Stop, or do nothing."""
        self.progress.check(strict=self.strict)

    def on_epoch_end(self, *_: Any) -> None:
        """Do nothing."""

    def on_save(self) -> None:
        """Do nothing."""
