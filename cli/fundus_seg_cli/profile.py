"""`fundus-seg profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from fundus_seg.builtins import OPERATORS
from fundus_seg_cli.options import AllOperators, Config, Format, Overrides, names
from fundus_seg_cli.table import print_report

_ALL = ",".join(OPERATORS)


def profile(
    ops: AllOperators = _ALL,
    size: Annotated[
        int | None, typer.Option(help="Height and width of the photographs, a multiple of 16 (default: data.size).")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Number of photographs in a batch.")] = 1,
    repeats: Annotated[int, typer.Option(min=2, help="Number of measured passes of each operator.")] = 20,
    config: Config = "paper",
    overrides: Overrides = None,
    form: Format = "rich",
) -> None:
    """Measure parameters, MACs, latency and peak memory of inference, operators side by side, on random weights."""
    from fundus_seg.config import load_recipe
    from fundus_seg.protocol import check_side

    settings = [load_recipe(config, overrides=overrides or [], arguments={"model.op": name}) for name in names(ops)]

    specs = list({each.model.op: each.network_spec() for each in settings}.values())
    side = size if size is not None else specs[0]["image_size"]
    check_side("size", side)

    from fundus_seg.profiling import profile as profile_networks
    from fundus_seg.reporting.profile_table import profile_table
    from fundus_seg_cli.progress import Terminal

    frozen = settings[0].model.freeze == "encoder"
    profiles = profile_networks(specs, size=side, batch=batch, repeats=repeats, frozen=frozen, progress=Terminal())
    print_report(profile_table(profiles), form)
