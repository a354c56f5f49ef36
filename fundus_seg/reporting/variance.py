"""Report of how much features vary within photographs and at one position across them: the table and its plot."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fundus_seg.evaluation.variance import FeatureVariances
from fundus_seg.reporting.notes import PHANTOM_HEADING
from fundus_seg.reporting.table import Report, Table
from fundus_seg.viz.curves import draw_curves
from fundus_seg.viz.style import save

_QUANTITIES = {
    "ratio": "cross / intra",
    "cross": "cross-image variance",
    "intra": "intra-image variance",
}


def variance_table(found: FeatureVariances) -> Report:
    """One row per domain and shift, one column per stage: ratio (cross / intra). The frame is `found.rows`."""
    rows = []
    for _, own in found.rows.groupby(["domain", "shift"], sort=False):
        numbers = zip(own["ratio"], own["cross"], own["intra"], strict=True)
        texts = (f"{ratio:.2f} ({cross:.3g} / {intra:.3g})" for ratio, cross, intra in numbers)
        domain, shift, photographs = own[["domain", "shift", "photographs"]].iloc[0]
        rows.append((domain, str(photographs), _crops(shift), *texts))
    stages = found.rows.drop_duplicates("stage")
    columns = tuple(
        f"stage {stage} (stride {stride})" for stage, stride in zip(stages["stage"], stages["stride"], strict=True)
    )
    notes = (
        "ratio (cross / intra): variance of a feature at one position across photographs / its variance within a "
        "photograph, means over channels and positions, or over photographs; a small ratio says that the layout is the "
        "same in all photographs, and 1 or more that the position says nothing",
        f"encoder {found.encoder}, {_weights(found)}, photographs at {found.size}x{found.size}",
        "shifted: each photograph by a random share of its side, up to this one for each axis, reflected at the border",
    )
    labels = ("domain", "photographs", "crops")
    return Report(found.rows, Table(_title(found), labels, columns, tuple(rows), notes))


def write_variance_plot(found: FeatureVariances, folder: Path) -> list[Path]:
    """Draw ratio, cross-image and intra-image variance by stage, as `variance.png` and `variance.svg`.

    Raises:
        RunError: they cannot be written.
    """
    points = pd.concat(
        [found.rows.assign(row=name, y=found.rows[name]) for name in _QUANTITIES], ignore_index=True
    ).rename(columns={"domain": "panel", "stage": "x"})
    points = points.assign(line=points["shift"].map(_crops), low=float("nan"), high=float("nan"))
    title = f"{_title(found)}; {found.encoder}, {_weights(found)}"
    figure = draw_curves(points, rows=_QUANTITIES, panel="domain", across="stage of the encoder", title=title)
    return save(figure, folder / f"{'phantom-' if found.phantom else ''}variance")


def _title(found: FeatureVariances) -> str:
    phantom = PHANTOM_HEADING if found.phantom else ""
    return f"{phantom}Variance of features across photographs and within them, {found.splits}"


def _weights(found: FeatureVariances) -> str:
    return "random weights" if found.weights == "none" else f"weights {found.weights}"


def _crops(shift: float) -> str:
    return f"shifted by up to {100 * shift:g} %" if shift else "as given"
