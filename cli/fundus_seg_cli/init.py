"""`fundus-seg data init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fundus_seg_cli.console import print_data
from fundus_seg_cli.options import Strict


def init(
    folder: Annotated[Path, typer.Argument(help="Folder with photographs and masks, in subfolders of any names.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; its paths are relative to it. Default: domains.yaml in FOLDER.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    strict: Strict = False,
) -> None:
    """Write a YAML file of domains for a folder: which photographs, masks, splits and coding, with ? at each guess."""
    from fundus_seg.data.init_file import write_domain_file
    from fundus_seg.errors import counted
    from fundus_seg_cli.progress import Terminal

    progress = Terminal()
    written = write_domain_file(folder, out, force=force, progress=progress)
    for line in written.lines:
        progress.line(line)
    guesses = f"{counted(written.questions, 'line')} with a question mark to look at; " if written.questions else ""
    progress.line(f"{guesses}then: fundus-seg data check {written.path}")
    print_data(written.path)
    progress.check(strict=strict)
