"""Numbers of comparisons as texts; what is not there reads `missing` or `-`."""

from __future__ import annotations

import math


def mean_sd_text(mean: float, sd: float = math.nan) -> str:
    """`87.31 ± 0.52`; the mean alone where the deviation is NaN; `missing` where the mean is."""
    if math.isnan(mean):
        return "missing"
    return f"{mean:.2f}" if math.isnan(sd) else f"{mean:.2f} ± {sd:.2f}"


def difference_text(difference: float, low: float = math.nan, high: float = math.nan) -> str:
    """`+1.21 [+0.40, +2.02]`; without an interval where that is NaN; `missing` where the difference is."""
    if math.isnan(difference):
        return "missing"
    return f"{difference:+.2f}" if math.isnan(low) else f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"


def p_text(p: float) -> str:
    """`0.012`, `< 0.001`, or `-` for NaN."""
    return "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
