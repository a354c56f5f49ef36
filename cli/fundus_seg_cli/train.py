"""`fundus-seg train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.builtins import OPERATORS

DATA_HELP = (
    "Folder with Domain1..4, a YAML file that describes domains of your own (see the README), or 'phantom'. "
    "Default: $FUNDUS_SEG_DATA, then data/Fundus."
)


class Track(StrEnum):
    """What shows a run while it trains."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"


def train(
    holdout: Annotated[
        str | None, typer.Option(help="The unseen domain: A, B, C or D, or a key of your own YAML file.")
    ] = None,
    op: Annotated[
        str | None,
        typer.Option(
            help=f"Operator (default: tvconv): {', '.join(OPERATORS)}; or package.module:factory of your own."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    config: Annotated[str, typer.Option(help="Preset, or a YAML file of what differs from one.")] = "paper",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as optim.lr=3e-4; repeat for more.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (default: 0).")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
    probe_holdout: Annotated[
        bool,
        typer.Option(
            "--probe-holdout",
            help="Score the unseen domain after each epoch and keep what that would pick, as oracle.ckpt; the run "
            "itself does not change by a bit.",
        ),
    ] = False,
    track: Annotated[
        list[Track] | None, typer.Option(help="Show the run in TensorBoard or MLflow besides; repeat for both.")
    ] = None,
) -> None:
    """Train on every domain but one. The same command again goes on with an interrupted run."""
    from fundus_seg.config import load_config, recorded_provenance
    from fundus_seg.data import open_root
    from fundus_seg_cli.progress import Terminal

    arguments = {"holdout": holdout, "model.op": op, "seed": seed}
    settings = load_config(config, overrides=overrides or [], arguments=arguments)
    recorded = recorded_provenance(config)  # of the run to repeat, where `config` is one's own file
    progress = Terminal()
    root = open_root(data or recorded.get("data_root"), progress=progress)

    from fundus_seg.hardware import gpu_name
    from fundus_seg.runs.provenance import changes
    from fundus_seg.training import train as train_run  # torch and lightning, only once the arguments are right
    from fundus_seg.training.tracking import tracker

    for change in changes(recorded, gpu_name()) if recorded else ():
        progress.line(f"warning: {config}: {change}; the bits may differ")
    trackers = [tracker(each.value) for each in track or []]
    run = train_run(settings, root, out, probe=probe_holdout, observers=trackers, progress=progress)
    print(run.path)
