"""`fundus-seg data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fundus_seg_cli.console import print_data, print_text
from fundus_seg_cli.init import init
from fundus_seg_cli.localiser import localiser
from fundus_seg_cli.options import Format, Root, Strict, command_class, paragraphs
from fundus_seg_cli.prepare import prepare
from fundus_seg_cli.table import print_report
from fundus_seg_cli.variance import variance

_CLASS = command_class()
app = typer.Typer(help="Check, describe and make photographs and masks.", no_args_is_help=True)
app.command("prepare", help=paragraphs(prepare.__doc__), cls=_CLASS)(prepare)
app.command("init", help=paragraphs(init.__doc__), cls=_CLASS)(init)
app.command(cls=_CLASS)(localiser)
app.command("variance", help=paragraphs(variance.__doc__), cls=_CLASS)(variance)


@app.command(cls=_CLASS)
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder that does not exist yet.")],
    per_domain: Annotated[int, typer.Option(help="Number of photographs in each of the four domains.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed that every photograph is drawn from.")] = 0,
    frames: Annotated[
        bool, typer.Option("--frames", help="Draw whole photographs, not crops around the disc; their masks are true.")
    ] = False,
    varied: Annotated[
        bool,
        typer.Option(
            "--varied", help="Draw every eye with a camera and a reader of its own: what the starter learnt from."
        ),
    ] = False,
) -> None:
    """Draw four synthetic domains: to try the tool with, never to report on patients."""
    from fundus_seg.data import make_phantom, open_root
    from fundus_seg.errors import counted
    from fundus_seg.protocol import DOMAINS, source_half
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    with progress.task("drawing the phantom", total=len(DOMAINS) * per_domain) as advance:
        made = make_phantom(out, per_domain=per_domain, seed=seed, frames=frames, varied=varied, on_case=advance)
    root = open_root(made)
    for domain in root.domains:
        cases = root.split(domain, "test").cases
        if not any(source_half(case.subject) == "select" for case in cases):
            progress.line(
                f"warning: none of the {counted(len(cases), 'test case')} of {domain} falls into the half that selects "
                "checkpoints; draw more with --per-domain, or train with --set train.selection=last"
            )
    print_data(made)


@app.command(cls=_CLASS)
def check(
    root: Root,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    strict: Strict = False,
) -> None:
    """List everything that is wrong with photographs and masks, by file; exit 1 if training would be wrong."""
    import json

    from fundus_seg.data import open_root
    from fundus_seg.data.check import check_root
    from fundus_seg_cli.progress import Terminal
    from fundus_seg_cli.table import print_check

    progress = Terminal()
    found = check_root(open_root(root, least=1, progress=progress), progress=progress)
    if as_json:
        print_data(json.dumps(found.as_dict(), indent=2))
    else:
        print_check(found)
    if found.problems("error"):
        raise typer.Exit(1)
    progress.warned += map(str, found.problems("warning"))  # which are printed already
    progress.check(strict=strict)


@app.command(cls=command_class({"--plot": "--plots"}))
def atlas(
    root: Root,
    split: Annotated[
        Literal["train", "test", "all"], typer.Option(help="Cases that are read: those of one split, or all.")
    ] = "all",
    form: Format = "rich",
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Folder for atlas.png and atlas.svg, or the name of one file; the other form is written beside it."
        ),
    ] = None,
    strict: Strict = False,
) -> None:
    """Show what each domain is like, and how far it is from the others: colour, light, sharpness, disc size, ratios."""
    from fundus_seg.data import open_root
    from fundus_seg.data.files import SPLITS
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    splits = tuple(each for each in SPLITS if split in ("all", each))
    opened = open_root(root, least=1, progress=progress)

    from fundus_seg.reporting.atlas import make_atlas  # pandas, only once the arguments are right
    from fundus_seg.reporting.atlas_tables import measures_table, shift_table, write_plot

    found = make_atlas(opened, splits, progress=progress)
    for problem in found.problems:
        progress.line(f"{problem}")
    paths = [problem.path or problem.text for problem in found.problems]
    progress.left_out("file", "missing or not usable, and so their cases", paths)
    print_report(measures_table(found), form, progress.told)
    if found.cases["domain"].nunique() > 1:
        print_report(shift_table(found), form, progress.told)
    if plots:
        progress.line(f"plots: {', '.join(map(str, write_plot(found, plots)))}")
    progress.check(strict=strict)


@app.command(cls=_CLASS)
def cache(
    show: Annotated[
        bool, typer.Option("--list", help="Print what the cache holds, when each item was made, and its size.")
    ] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Delete the cache; later runs make it again.")] = False,
) -> None:
    """List or clear the cache, which holds resized photographs, remembered hashes and the phantom."""
    from datetime import datetime

    from fundus_seg.cache_folder import cache_folder, cache_items, clear_cache
    from fundus_seg.errors import UsageError, counted

    if show == clear:
        raise UsageError("give either --list or --clear")
    items = cache_items()
    if show:
        for item in items:
            made = datetime.fromtimestamp(item.made).isoformat(" ", "minutes")
            print_text(f"{made} {item.size / 1e6:9.1f} MB  {item.what}: {item.path}")
    else:
        clear_cache()
    done = "cleared" if clear else "in all"
    print_text(
        f"{cache_folder()}: {counted(len(items), 'item')}, {sum(item.size for item in items) / 1e6:.1f} MB {done}"
    )
