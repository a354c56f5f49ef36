"""`fundus-seg export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from fundus_seg.errors import UsageError
from fundus_seg_cli.console import print_data
from fundus_seg_cli.options import Strict, Trust, TruthCoding


def export(
    model: Annotated[str, typer.Argument(help="Folder of a run, whose best is taken, or a checkpoint file.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="File to write, .safetensors; the same as --out.")
    ] = None,
    form: Annotated[
        Literal["torch", "onnx"],
        typer.Option(
            "--format",
            help="With torch, the weights in half precision in one file, taken as any checkpoint is. With onnx, a "
            "folder that runs without torch and without this package, checked before it is kept.",
        ),
    ] = "torch",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of onnx, a new folder. Of torch, a file .safetensors, or a folder that gets model.safetensors."
        ),
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="A text that is kept with it, as licence=MIT; may be given again."),
    ] = None,
    photographs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Of onnx: photograph, or folder of photographs, on which it is compared with torch (default: phantom "
            "ones). Repeat for more."
        ),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Of onnx: compute in whole numbers of 8 bits, calibrated on --photographs, and kept only if the mean "
            "Dice against --truth falls by 0.3 points at most.",
        ),
    ] = False,
    truth: Annotated[
        list[str] | None,
        typer.Option(help="For --int8: true masks with the names of the photographs, as `predict` takes them."),
    ] = None,
    truth_coding: TruthCoding = None,
    trust: Trust = None,
    strict: Strict = False,
) -> None:
    """Write a network to hand on: its weights in one small file, or a folder of ONNX that runs without torch."""
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    place = file or out
    if place is None or (file and out):
        raise UsageError("give one place to write to, as --out DIR")
    for name in trust or []:
        load(name)
    if form == "onnx":
        from fundus_seg.data.domain_file import read_coding
        from fundus_seg.inference.onnx_export import export_onnx

        written = export_onnx(
            model,
            place,
            _texts(about or ()),
            photographs=photographs or (),
            truth=truth or (),
            truth_coding=read_coding(truth_coding) if truth_coding else None,
            int8=int8,
            progress=progress,
        )
    else:
        from fundus_seg.exchanged import WEIGHTS
        from fundus_seg.inference.export import export_model

        if photographs or int8 or truth or truth_coding:
            raise UsageError("--photographs, --int8 and --truth are for --format onnx")
        written = export_model(model, place if place.suffix else place / WEIGHTS, _texts(about or ()))
    print_data(written)
    progress.check(strict=strict)


def _texts(about: Iterable[str]) -> dict[str, str]:
    """Texts by name, of the form NAME=TEXT."""
    texts = {}
    for each in about:
        name, equals, text = each.partition("=")
        if not (name and equals):
            raise UsageError(f"--about {each}: give NAME=TEXT")
        texts[name] = text
    return texts
