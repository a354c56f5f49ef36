"""`fundus-seg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg.errors import UsageError
from fundus_seg_cli.console import print_data


def export(
    model: Annotated[str, typer.Argument(help="Folder of a run, whose best is taken, or a checkpoint file.")],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    about: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="A text for the file's header, as licence=MIT; may be given again."),
    ] = None,
) -> None:
    """Write a network as one small file to hand on: half precision, no code, with what trained it and how to use it."""
    from fundus_seg.inference.export import export_model

    texts = {}
    for each in about or ():
        name, equals, text = each.partition("=")
        if not (name and equals):
            raise UsageError(f"--about {each}: give NAME=TEXT")
        texts[name] = text
    print_data(export_model(model, out, texts))
