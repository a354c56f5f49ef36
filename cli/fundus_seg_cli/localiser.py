"""`fundus-seg data localiser`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.console import print_data


def localiser(
    out: Annotated[Path, typer.Argument(help="File of weights to write, .safetensors.")],
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT",
            help="Whole photographs with true masks, a data root or its YAML file: the training splits are learnt from "
            "beside the phantom, the test splits measured.",
        ),
    ] = None,
    holdout: Annotated[
        str, typer.Option(help="Domain of the phantom whose camera is not learnt from, but measured.")
    ] = "D",
    per_domain: Annotated[int, typer.Option(min=1, help="Phantom frames of each other domain.")] = 900,
    steps: Annotated[int, typer.Option(min=10, help="Training steps.")] = 3200,
    batch: Annotated[int, typer.Option(min=1, help="Views of each step.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw beside the one that trains.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
) -> None:
    """Train the network that finds the disc in whole photographs, and measure it; the package comes with one."""
    from fundus_seg.data import open_root
    from fundus_seg.evaluation.localised import make_localiser
    from fundus_seg.training.localiser import Effort
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    root = open_root(frames, progress=progress) if frames else None
    effort = Effort(per_domain, steps, batch, workers)
    measured = make_localiser(out, effort, holdout=holdout, seed=seed, root=root, progress=progress)
    for what, found in measured.items():
        progress.line(f"{what}: {found}")
    print_data(out)
