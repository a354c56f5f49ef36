"""`fundus-seg predict`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

OP_HELP = "Operator of your own, package.module:factory, which is imported: no checkpoint does that by itself."


class MaskFormat(StrEnum):
    """How masks are written."""

    png = "png"
    nifti = "nifti"


class Precision(StrEnum):
    """What the network computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a checkpoint.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Where masks go.")],
    form: Annotated[
        MaskFormat, typer.Option("--format", help="png: grey 0 cup, 128 rim, 255 background; nifti: labels 2, 1, 0.")
    ] = MaskFormat.png,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw the contours on each photograph.")] = False,
    truth: Annotated[Path | None, typer.Option(help="Folder of true masks with the photographs' names.")] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16: faster where the machine has it; a few pixels may differ.")
    ] = Precision.fp32,
    op: Annotated[str | None, typer.Option(help=OP_HELP)] = None,
) -> None:
    """Write the masks of photographs at their own size, with a table of sizes and cup-to-disc ratios."""
    from fundus_seg.inference.folder import predict_folder
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    if op:
        load(op)
    progress = Terminal()
    written = predict_folder(
        model,
        images,
        out,
        form=form.value,
        overlay=overlay,
        truth=truth,
        precision=precision.value,
        progress=progress,
    )
    print(written)
