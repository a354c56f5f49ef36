"""`fundus-seg app`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fundus_seg_cli.console import print_data, terminable
from fundus_seg_cli.options import DeclineBelow, Trust


def app(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="As `predict` takes it: the folder of a run, a checkpoint file, a folder that `export` made, a folder "
            "with runs below, or `starter`, the network that comes with the package. Several predict together.",
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1 where the page is; 0: any that is free.")
    ] = 8765,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address alone, and do not open the browser.")
    ] = False,
    decline_below: DeclineBelow = None,
    trust: Trust = None,
) -> None:
    """Open a page on this machine that measures the photographs which are dropped on it.

    It shows contours, cup-to-disc ratios, status and reason; the disc can be boxed by hand, and the table saved. The
    page is at 127.0.0.1 alone, and nothing leaves the machine. Ctrl-C ends it, and deletes the photographs' copies.
    """
    from fundus_seg.app.server import serve
    from fundus_seg.plugins import load
    from fundus_seg_cli.progress import Terminal

    def say(address: str) -> None:
        print_data(address)
        sys.stdout.flush()  # whoever waits for it at the end of a pipe gets it now

    progress = Terminal()
    for name in trust or []:
        load(name)
    with terminable():
        try:
            serve(
                models,
                port=port,
                decline_below=decline_below,
                browser=not no_browser,
                say=say,
                progress=progress,
            )
        except KeyboardInterrupt:
            progress.line("stopped; the copies of the photographs are deleted")
