"""`fundus-seg predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.builtins import MaskFormat
from fundus_seg_cli.console import print_data
from fundus_seg_cli.options import NetworkPrecision, Strict, Trust


def predict(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint file.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of photographs.")],
    out: Annotated[Path, typer.Option(help="Folder that the masks are written to.")],
    form: Annotated[
        MaskFormat,
        typer.Option("--format", help="png: grey 0 cup, 128 rim, 255 background; nifti: labels 2, 1, 0."),
    ] = "png",
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw the contours on each photograph.")] = False,
    truth: Annotated[
        Path | None, typer.Option(help="Folder of true masks that have the names of the photographs.")
    ] = None,
    precision: NetworkPrecision = "fp32",
    trust: Trust = None,
    strict: Strict = False,
) -> None:
    """Write the masks of photographs at their own size, with a table of sizes and cup-to-disc ratios."""
    from fundus_seg.inference.folder import predict_folder
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    for name in trust or []:
        load(name)
    print_data(
        predict_folder(
            model,
            images,
            out,
            form=form,
            overlay=overlay,
            truth=truth,
            precision=precision,
            progress=progress,
        )
    )
    progress.check(strict=strict)
