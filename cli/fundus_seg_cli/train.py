"""`fundus-seg train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA_HELP = (
    "Folder with Domain1..4, a YAML file that describes domains of your own (see the README), or 'phantom'. "
    "Default: $FUNDUS_SEG_DATA, then data/Fundus."
)


def train(
    holdout: Annotated[
        str | None, typer.Option(help="The unseen domain: A, B, C or D, or a key of your own YAML file.")
    ] = None,
    op: Annotated[
        str | None,
        typer.Option(
            help="Operator: conv, depthwise or tvconv (default); or a control: depthwise-dilated, depthwise-wide, "
            "untied, linear or coordconv; or package.module:factory of your own."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    config: Annotated[str, typer.Option(help="Preset, or a YAML file of what differs from one.")] = "paper",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as optim.lr=3e-4; repeat for more.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (default: 0).")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
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

    from fundus_seg.provenance import changes
    from fundus_seg.training import train as train_run  # torch and lightning, only once the arguments are right

    for change in changes(recorded) if recorded else ():
        progress.line(f"warning: {config}: {change}; the bits may differ")
    run = train_run(settings, root, out, progress=progress)
    print(run.path)
