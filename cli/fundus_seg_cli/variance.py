"""`fundus-seg data variance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fundus_seg_cli.options import Format, Root, Strict, numbers
from fundus_seg_cli.table import print_report


def variance(
    root: Root,
    split: Annotated[
        Literal["train", "test", "all"], typer.Option(help="Photographs that are read: those of one split, or all.")
    ] = "all",
    encoder: Annotated[
        str, typer.Option(help="Encoder whose features are measured; any that the setting model.encoder takes.")
    ] = "tu-tf_efficientnet_lite0",
    encoder_weights: Annotated[
        str,
        typer.Option(
            help="Weights of the encoder: imagenet, none (random), or the file of a state dict. Those of "
            "tu-tf_efficientnet_lite0 come with the extra `weights`."
        ),
    ] = "imagenet",
    size: Annotated[
        int, typer.Option(help="Height and width at which the encoder sees photographs, a multiple of 16.")
    ] = 256,
    shifts: Annotated[
        str,
        typer.Option(
            help="Largest random translations of the misaligned crops, as shares of the side, separated by commas; the "
            "photographs as given are always measured too."
        ),
    ] = "0.2",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the translations.")] = 0,
    form: Format = "rich",
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for variance.png and variance.svg.")
    ] = None,
    strict: Strict = False,
) -> None:
    """Show whether position pays: how features vary across photographs, beside how they vary within one.

    The variance at one position across photographs is small beside that within a photograph where all photographs have
    the same layout. It is measured at each stage of an encoder, of the photographs as given and of misaligned crops.
    """
    from fundus_seg.data import open_root
    from fundus_seg.data.files import SPLITS
    from fundus_seg_cli.progress import Terminal

    shares, progress = numbers(shifts, "--shifts"), Terminal()
    splits = tuple(each for each in SPLITS if split in ("all", each))
    opened = open_root(root, least=1, progress=progress)

    from fundus_seg.evaluation.feature_variance import measure_variance  # torch, only once the arguments are right
    from fundus_seg.reporting.variance import variance_table, write_variance_plot

    found = measure_variance(
        opened,
        splits,
        encoder=encoder,
        weights=encoder_weights,
        size=size,
        shifts=shares,
        seed=seed,
        progress=progress,
    )
    for problem in found.problems:
        progress.line(f"{problem}")
    paths = [problem.path or problem.text for problem in found.problems]
    progress.left_out("file", "missing or not usable, and so their photographs", paths)
    print_report(variance_table(found), form, progress.told)
    if plots:
        progress.line(f"plots: {', '.join(map(str, write_variance_plot(found, plots)))}")
    progress.check(strict=strict)
