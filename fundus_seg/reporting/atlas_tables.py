"""Tables and a plot of an atlas: each domain's measures, and its distance from all others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from fundus_seg.reporting.atlas import MEASURES, Atlas, domain_shift
from fundus_seg.reporting.notes import PHANTOM_HEADING
from fundus_seg.reporting.table import Report, Table
from fundus_seg.viz.plots import draw_small_multiples
from fundus_seg.viz.style import save

_FRAME = {"width": "width [px]", "height": "height [px]"}
_QUARTILES = {"median": 0.5, "first_quartile": 0.25, "third_quartile": 0.75}


def measures_table(atlas: Atlas) -> Report:
    """One row per measure, one column per domain: median [quartiles] over its cases.

    The frame has one row per domain and measure: domain, measure, cases (those where it is defined), median,
    first_quartile, third_quartile.
    """
    groups = {str(domain): group for domain, group in atlas.cases.groupby("domain", sort=False)}
    frame = pd.DataFrame(
        _quartiles(domain, name, group[name]) for domain, group in groups.items() for name in (*_FRAME, *MEASURES)
    )
    rows = [("cases", *(str(len(group)) for group in groups.values()))]
    labels = {**_FRAME, **MEASURES}
    for name, own in frame.groupby("measure", sort=False):
        quartiles = zip(own["median"], own["first_quartile"], own["third_quartile"], strict=True)
        rows.append((labels[str(name)], *(_quartiles_text(*each) for each in quartiles)))
    undefined = int(atlas.cases[list(MEASURES)].isna().any(axis=1).sum())
    notes = (
        "median [quartiles] over cases, within the camera's field of view; red, green, blue: of 255; photographs are "
        "measured at 256x256, masks at their own size",
        "contrast: SD of L*; unevenness: SD of the quadratic surface fitted to L* outside the disc; sharpness: SD of "
        "the Laplacian of L*; disc contrast: L* of the disc - L* around it; cup contrast: L* of cup - L* of rim",
        "disc diameter: of the circle of its area, in % of the square root of the frame's; CDR: cup-to-disc ratio",
        *([f"cases with a measure that is not defined (no disc or no cup): {undefined}"] if undefined else []),
    )
    return Report(frame, Table(_title(atlas, "Domains"), ("measure",), tuple(groups), tuple(rows), notes))


def shift_table(atlas: Atlas) -> Report:
    """One row per measure, one column per domain: signed distance from all others; at the end the median |distance|.

    The frame has one row per domain and measure: domain, measure, distance.

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
    )
    title = _title(atlas, "How far each domain is from the rest")
    frame = shift.rename_axis("domain").reset_index().melt("domain", var_name="measure", value_name="distance")
    return Report(frame, Table(title, ("measure",), tuple(shift.index), tuple(rows), notes, bold))


def write_plot(atlas: Atlas, path: Path) -> list[Path]:
    """Plot every measure by domain, as PNG and SVG.

    Args:
        atlas: what was read.
        path: a folder for `atlas.png` and `atlas.svg`; or the name of one file, beside which the other form is put.

    Returns:
        The two paths.

    Raises:
        RunError: they cannot be written.
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".png", ".svg") else path / "atlas"
    title = f"{_title(atlas, 'Domains')}. A dot is a case"
    return save(draw_small_multiples(atlas.cases, labels=MEASURES, title=title), stem)


def _quartiles(domain: str, measure: str, values: pd.Series) -> dict[str, object]:
    row = {"domain": domain, "measure": measure, "cases": int(values.count())}
    return row | {name: float(values.quantile(level)) for name, level in _QUARTILES.items()}


def _quartiles_text(median: float, first: float, third: float) -> str:
    """`35.8 [26.3, 41.1]`, three digits of the largest; the median alone where all are equal; `-` where it is NaN."""
    if math.isnan(median):
        return "-"
    largest = max(map(abs, (first, median, third)))
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2
    return f"{median:.{digits}f}" if first == third else f"{median:.{digits}f} [{first:.{digits}f}, {third:.{digits}f}]"


def _split_note(cases: pd.DataFrame) -> tuple[str, ...]:
    """How far the splits of one domain are apart: the distance that chance and the splitting alone can make."""
    distances = {
        str(domain): float(domain_shift(group.assign(domain=group["split"])).abs().median(axis="columns").iloc[0])
        for domain, group in cases.groupby("domain", sort=False)
        if group["split"].nunique() > 1
    }
    if not distances:
        return ()
    each = ", ".join(f"{domain} {distance:.2f}" for domain, distance in distances.items())
    return (f"for comparison, the median |distance| between train and test of one domain: {each}",)


def _title(atlas: Atlas, what: str) -> str:
    splits = list(dict.fromkeys(atlas.cases["split"]))
    phantom = PHANTOM_HEADING if atlas.phantom else ""
    return f"{phantom}{what}, {' and '.join(splits)} {'split' if len(splits) == 1 else 'splits'}"
