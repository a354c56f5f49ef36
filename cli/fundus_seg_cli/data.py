"""`fundus-seg data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Photographs and masks.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Photographs and masks."""


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    per_domain: Annotated[int, typer.Option(help="Photographs in each of the four domains.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every photograph.")] = 0,
) -> None:
    """Draw four synthetic domains: to try the tool with, never to report on patients."""
    from fundus_seg.data import make_phantom
    from fundus_seg.data.domains import DOMAINS
    from fundus_seg_cli.progress import Terminal

    with Terminal().task("drawing the phantom", total=len(DOMAINS) * per_domain) as advance:
        print(make_phantom(out, per_domain=per_domain, seed=seed, on_case=advance))
