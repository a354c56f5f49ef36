"""What an atlas shows: tables of each domain's measures and of its distance from all others; their plot."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from fundus_seg.reporting.atlas import MEASURES, Atlas, domain_shift
from fundus_seg.reporting.notes import PHANTOM_HEADING
from fundus_seg.reporting.numbers import data_text
from fundus_seg.reporting.table import Table
from fundus_seg.viz.plots import draw_small_multiples, save

_FRAME = {"width": "width [px]", "height": "height [px]"}
_QUARTILES = (0.5, 0.25, 0.75)


def measures_table(atlas: Atlas) -> Table:
    """A row a measure, a column a domain: median [quartiles] over its cases."""
    groups = {str(domain): group for domain, group in atlas.cases.groupby("domain", sort=False)}
    rows = [("cases", *(str(len(group)) for group in groups.values()))]
    for name, label in {**_FRAME, **MEASURES}.items():
        rows.append((label, *(_quartiles_text(group[name]) for group in groups.values())))
    undefined = int(atlas.cases[list(MEASURES)].isna().any(axis=1).sum())
    notes = (
        "median [quartiles] over cases, within the camera's field of view; red, green, blue: of 255; photographs are "
        "measured at 256x256, masks at their own size",
        "contrast: SD of L*; unevenness: SD of the quadratic surface fitted to L* outside the disc; sharpness: SD of "
        "the Laplacian of L*; disc contrast: L* of the disc - L* around it; cup contrast: L* of cup - L* of rim",
        "disc diameter: of the circle of its area, in % of the square root of the frame's; CDR: cup-to-disc ratio",
        *([f"{undefined} cases have a measure that is not defined (an empty disc or cup)"] if undefined else []),
        *_left_out(atlas),
    )
    return Table(_title(atlas, "Domains"), ("measure",), tuple(groups), tuple(rows), notes)


def shift_table(atlas: Atlas) -> Table:
    """A row a measure, a column a domain: signed distance from all other domains; at the end the median of |distance|.

    Raises:
        UsageError: fewer than two domains.
    """
    shift = domain_shift(atlas.cases)
    rows = [
        (label, *("-" if math.isnan(value) else f"{value:+.2f}" for value in shift[name]))
        for name, label in MEASURES.items()
    ]
    rows.append(("median |distance|", *(f"{value:.2f}" for value in shift.abs().median(axis="columns"))))
    farthest = shift.abs().eq(shift.abs().max()).to_numpy().T
    bold = frozenset((int(row), int(column)) for row, column in np.argwhere(farthest) if len(shift) > 2)
    notes = (
        "Wasserstein-1 distance between the domain and all others, which weigh alike, in SDs within domains; + where "
        "the domain lies above the others" + ("; bold: the farthest domain" if bold else ""),
        *_split_note(atlas.cases),
        *_left_out(atlas),
    )
    title = _title(atlas, "How far each domain is from the rest")
    return Table(title, ("measure",), tuple(shift.index), tuple(rows), notes, bold)


def tidy_table(atlas: Atlas) -> Table:
    """For programs: a row a domain and measure, with the count of defined values, quartiles and signed distance."""
    shift = domain_shift(atlas.cases) if atlas.cases["domain"].nunique() > 1 else None
    rows = []
    for domain, group in atlas.cases.groupby("domain", sort=False):
        for name in (*_FRAME, *MEASURES):
            values = group[name].dropna()
            distance = shift.at[domain, name] if shift is not None and name in MEASURES else math.nan
            numbers = (*values.quantile(_QUARTILES), distance)
            rows.append((str(domain), name, str(len(values)), *map(data_text, numbers)))
    columns = ("cases", "median", "first_quartile", "third_quartile", "distance")
    return Table(_title(atlas, "Domains"), ("domain", "measure"), columns, tuple(rows), _left_out(atlas))


def write_plot(atlas: Atlas, path: Path) -> list[Path]:
    """Every measure by domain, as PNG and SVG: `atlas` in the folder `path`, or what a file's name says.

    Raises:
        RunError: they cannot be written.
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".png", ".svg") else path / "atlas"
    title = f"{_title(atlas, 'Domains')}. A dot is a case"
    return save(draw_small_multiples(atlas.cases, labels=MEASURES, title=title), stem)


def _quartiles_text(values: pd.Series) -> str:
    """`35.8 [26.3, 41.1]`, with three digits; the median alone where all are equal; `-` where none is defined."""
    median, first, third = values.quantile(_QUARTILES)
    if math.isnan(median):
        return "-"
    return f"{_digits(median)}" if first == third else f"{_digits(median)} [{_digits(first)}, {_digits(third)}]"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _split_note(cases: pd.DataFrame) -> tuple[str, ...]:
    """How far the splits of one domain are apart, which is what chance and a domain's own splitting come to."""
    apart = {
        str(domain): float(domain_shift(group.assign(domain=group["split"])).abs().median(axis="columns").iloc[0])
        for domain, group in cases.groupby("domain", sort=False)
        if group["split"].nunique() > 1
    }
    if not apart:
        return ()
    each = ", ".join(f"{domain} {distance:.2f}" for domain, distance in apart.items())
    return (f"for comparison, the median |distance| between train and test of one domain: {each}",)


def _left_out(atlas: Atlas) -> tuple[str, ...]:
    return (f"left out: {len(atlas.problems)} files with problems",) if atlas.problems else ()


def _title(atlas: Atlas, what: str) -> str:
    splits = " and ".join(dict.fromkeys(atlas.cases["split"]))
    return f"{PHANTOM_HEADING if atlas.phantom else ''}{what}, {splits} split{'s' * (' and ' in splits)}"
