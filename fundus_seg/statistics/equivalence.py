"""Whether a published number was reproduced: from means, standard deviations and numbers of runs alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from fundus_seg.statistics.intervals import ALPHA, MINIMAL_RUNS

Verdict = Literal["reproduced", "not reproduced", "undecided"]


@dataclass(frozen=True)
class Summary:
    """A cell of a table: mean and standard deviation (n - 1) over runs, and their number."""

    mean: float
    sd: float
    runs: int


@dataclass(frozen=True)
class Equivalence:
    """Two cells compared.

    Attributes:
        difference: of the first mean from the second.
        low, high: its 95 % interval; NaN where it was not tested.
        p: of the equivalence test; NaN likewise.
        verdict: reproduced, not reproduced or undecided.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict

    @property
    def tested(self) -> bool:
        """Whether both sides have a spread to test with; undecided if not."""
        return not math.isnan(self.p)


def equivalence(ours: Summary, theirs: Summary, *, margin: float) -> Equivalence:
    """Welch's interval of the difference, and two one-sided tests (TOST) of its being within the margin.

    - reproduced: TOST p < 0.05, |difference| < margin is shown (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987), even
      where the interval excludes 0;
    - not reproduced: the whole 95 % interval lies beyond the margin, so a difference that matters is shown;
    - undecided: neither is shown, or nothing can be: fewer than MINIMAL_RUNS runs of ours or 2 of theirs, or no spread.

    Two one-sided tests at 5 % ask that the 90 % interval lies within the margin, the 95 % interval is wider: so a cell
    can be reproduced whose 95 % interval reaches a little beyond the margin, never one whose interval lies outside.

    Args:
        ours: a measured cell.
        theirs: the published one, of other runs.
        margin: the largest difference that does not matter, in the unit of the means.
    """
    difference = ours.mean - theirs.mean
    spread = ours.sd > 0 and theirs.sd > 0
    if ours.runs < MINIMAL_RUNS or theirs.runs < 2 or not spread:
        return Equivalence(difference, math.nan, math.nan, math.nan, "undecided")
    variances = [cell.sd**2 / cell.runs for cell in (ours, theirs)]
    error = math.sqrt(sum(variances))
    freedom = error**4 / sum(
        variance**2 / (cell.runs - 1) for variance, cell in zip(variances, (ours, theirs), strict=True)
    )
    half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    above = stats.t.sf((difference + margin) / error, freedom)  # p that the difference is not above -margin
    below = stats.t.cdf((difference - margin) / error, freedom)
    p = float(max(above, below))
    beyond = abs(difference) - half > margin
    verdict: Verdict = "reproduced" if p < ALPHA else "not reproduced" if beyond else "undecided"
    return Equivalence(difference, difference - half, difference + half, p, verdict)
