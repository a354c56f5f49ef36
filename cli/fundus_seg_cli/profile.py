"""`fundus-seg profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from fundus_seg_cli.table import Format, print_table


def profile(
    op: Annotated[
        list[str] | None, typer.Option(help="Operators, as conv,tvconv; repeat for more (default: all).")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the photographs, a multiple of 16 (default: data.size).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Photographs in a batch.")] = 1,
    repeats: Annotated[int, typer.Option(min=2, help="Measured passes of each operator.")] = 20,
    config: Annotated[str, typer.Option(help="Preset, or a YAML file of what differs from one.")] = "paper",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as model.encoder=resnet18; repeat for more.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How the table is written.")] = Format.rich,
) -> None:
    """Measure parameters, MACs, latency and peak memory of inference, operators side by side, on random weights."""
    from fundus_seg.builtins import OPERATORS
    from fundus_seg.config import load_recipe

    names = [name.strip() for names in op or OPERATORS for name in names.split(",")]
    settings = [load_recipe(config, overrides=overrides or [], arguments={"model.op": name}) for name in names]

    from fundus_seg.profiling import profile as profile_networks
    from fundus_seg.reporting.profile_table import profile_table
    from fundus_seg_cli.progress import Terminal

    specs = list({each.model.op: each.network_spec() for each in settings}.values())
    side = size if size is not None else specs[0]["image_size"]
    profiles = profile_networks(specs, size=side, batch=batch, repeats=repeats, progress=Terminal())
    print_table(profile_table(profiles), form)
