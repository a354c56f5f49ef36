"""`fundus-seg data prepare`: from the download of a public data set to domains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.console import print_data, print_text
from fundus_seg_cli.options import Strict


def prepare(
    name: Annotated[str | None, typer.Argument(help="Name of the data set; --list shows them.")] = None,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RAW... OUT",
            help="What you downloaded: folders, zip or tar archives, one or several; then the folder to write into.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Describe every data set, or NAME alone: terms, source, files, counts.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split: dofe (the benchmark's), official (the set's own) or hash (of names, one case in five for "
            "testing). Default: the first that --list shows, dofe where it exists."
        ),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(
            help="Reader whose masks are taken, or how those of all readers are combined: majority, union, "
            "intersection or staple; or all, which keeps the masks of each. Default: as --list says."
        ),
    ] = None,
    agreement: Annotated[
        int | None,
        typer.Option(help="Least number of the four experts who drew a pixel, in soft maps. Default: 3, the majority."),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            help="Crop about the true disc, in the photograph's own pixels: 800, WxH, or none for whole photographs. "
            "Default: 800."
        ),
    ] = None,
    scale_to_disc: Annotated[
        float | None,
        typer.Option(help="Crop of this many times the disc's larger diameter instead, resampled to 800 pixels."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out cases that lack a file; the manifest says which.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace other cases of this set in OUT.")] = False,
    strict: Strict = False,
) -> None:
    """Turn the download of a public data set into domains: files counted, discs cropped, each case in a manifest."""
    from fundus_seg.datasets import REFUSED, SETS, data_set
    from fundus_seg.errors import UsageError, counted
    from fundus_seg_cli.progress import Terminal

    if show:
        from fundus_seg.datasets.sheets import described

        for dataset in SETS.values() if name is None else (data_set(name),):
            print_text(described(dataset))
        for refused, why in REFUSED.items() if name is None else ():
            print_text(f"{refused}\n  Not prepared: {why}")
        return
    if name is None:
        raise UsageError(f"give NAME RAW... OUT, or --list; NAME is one of: {', '.join(SETS)}")
    dataset = data_set(name)
    if paths is None or len(paths) < 2:
        raise UsageError(f"give what you downloaded of {name}, then the folder to write into: RAW... OUT")
    rules = dataset.rules(split=split, reader=reader, agreement=agreement, crop=crop, scale_to_disc=scale_to_disc)

    from fundus_seg.datasets.prepare import prepare as prepare_set

    progress = Terminal()
    *raws, out = paths
    made = prepare_set(dataset, raws, out, rules, allow_missing=allow_missing, force=force, progress=progress)
    for domain in dataset.domains:
        numbers = ", ".join(f"{part} {made.cases[domain.key, part]}" for part in ("train", "test"))
        number = counted(sum(made.cases[domain.key, part] for part in ("train", "test")), "case")
        progress.line(f"{domain.key}: {number} ({numbers})")
    progress.line(f"rules: {rules}{'; the same files lay there already' if made.unchanged else ''}")
    print_data(made.domain_file)
    progress.check(strict=strict)
