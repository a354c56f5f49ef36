"""Numbers as texts; what is not there reads `missing` or `-` to people, `NA` to programs."""

from __future__ import annotations

import math


def mean_sd_text(mean: float, sd: float = math.nan, digits: int = 2) -> str:
    """`87.31 ± 0.52`; the mean alone where the deviation is NaN; `missing` where the mean is."""
    if math.isnan(mean):
        return "missing"
    return f"{mean:.{digits}f}" if math.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def mean_interval_text(mean: float, low: float, high: float) -> str:
    """`87.31 [85.0, 89.2]`; the mean alone where the interval is NaN."""
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} [{low:.1f}, {high:.1f}]"


def difference_text(difference: float, low: float = math.nan, high: float = math.nan) -> str:
    """`+1.21 [+0.40, +2.02]`; without an interval where that is NaN; `missing` where the difference is."""
    if math.isnan(difference):
        return "missing"
    return f"{difference:+.2f}" if math.isnan(low) else f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_text(p: float) -> str:
    """`0.012`, `< 0.001`, or `-` for NaN."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def data_text(value: float | None) -> str:
    """Six digits for a program to read; `NA` for NaN and None."""
    return "NA" if value is None or math.isnan(value) else f"{value:.6g}"
