"""The atlas of a data root: what the photographs and masks of each domain are like, and how far domains are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from fundus_seg.cores import map_on_cores
from fundus_seg.data.dataset import read_sample
from fundus_seg.data.files import SPLITS, Case, Split
from fundus_seg.data.layout import DataRoot
from fundus_seg.data.witness import Witness
from fundus_seg.errors import DataError, Problem, Problems, UsageError
from fundus_seg.metrics import area_cup_to_disc_ratio, vertical_cup_to_disc_ratio
from fundus_seg.metrics.photograph import photograph_measures
from fundus_seg.progress import SILENT, Progress

MEASURES = {
    "red": "red, mean",
    "green": "green, mean",
    "blue": "blue, mean",
    "red_sd": "red, SD",
    "green_sd": "green, SD",
    "blue_sd": "blue, SD",
    "a": "a*, mean",
    "b": "b*, mean",
    "a_sd": "a*, SD",
    "b_sd": "b*, SD",
    "lightness": "lightness [L*]",
    "lightness_sd": "contrast [L*]",
    "unevenness": "unevenness [L*]",
    "sharpness": "sharpness [L*/px²]",
    "disc_contrast": "disc contrast [L*]",
    "cup_contrast": "cup contrast [L*]",
    "disc_diameter": "disc diameter [%]",
    "disc_x": "disc centre, x [%]",
    "disc_y": "disc centre, y [%]",
    "vcdr": "vertical CDR",
    "acdr": "area CDR",
}
"""Labels with units, by name: those of `photograph_measures`, then those of `mask_measures`."""


@dataclass(frozen=True)
class Atlas:
    """The measures of every case that can be read.

    Attributes:
        root: what was read.
        phantom: whether synthetic photographs are among them.
        cases: one row per case: domain, split, case, height, width [px] and MEASURES; NaN where one is undefined.
        problems: the files that are missing or cannot be used; their cases are left out.
    """

    root: str
    phantom: bool
    cases: pd.DataFrame
    problems: tuple[Problem, ...]


def mask_measures(masks: NDArray[np.bool_]) -> dict[str, float]:
    """The measures of masks (2, H, W), channels ("disc", "cup"), at their own size.

    Returns:
        `disc_diameter`: of the circle of the disc's area, in % of the side of the square of the frame's area;
        `disc_x`, `disc_y`: the disc's centroid in % of width and height, from the upper left corner; `vcdr`, `acdr`:
        vertical and area cup-to-disc ratio. NaN for an empty disc; ratios also for an empty cup, which annotators
        leave where they saw none.
    """
    disc, cup = masks
    rows, columns = np.nonzero(disc)
    height, width = disc.shape
    there = len(rows) > 0
    graded = there and bool(cup.any())
    return {
        "disc_diameter": 100 * math.sqrt(4 * len(rows) / (math.pi * disc.size)) if there else math.nan,
        "disc_x": 100 * float(columns.mean() + 0.5) / width if there else math.nan,
        "disc_y": 100 * float(rows.mean() + 0.5) / height if there else math.nan,
        "vcdr": vertical_cup_to_disc_ratio(disc, cup) if graded else math.nan,
        "acdr": area_cup_to_disc_ratio(disc, cup) if graded else math.nan,
    }


def make_atlas(root: DataRoot, splits: Sequence[Split] = SPLITS, *, progress: Progress = SILENT) -> Atlas:
    """Measure every case of these splits, on all cores; cases that cannot be read are left out.

    Raises:
        DataError: no case can be read, or the masks of a split contradict their coding.
    """
    cases: list[Case] = []
    problems = Problems()
    for domain in root.domains:
        for split in splits:
            found = root.split(domain, split)
            cases += found.cases
            problems.found += found.problems
    description = f"reading {root.path}"
    witness = Witness()
    measured = partial(_measured, witness=witness)
    rows = map_on_cores(measured, cases, problems=problems, description=description, progress=progress)
    suspicion = witness.suspicion()
    Problems(suspicion.problems).refuse("problems with the masks")
    suspicion.tell(progress)
    if not rows:
        raise DataError("no case can be read; `fundus-seg data check` says why", root.path)
    return Atlas(str(root.path), root.phantom, pd.DataFrame(rows), tuple(problems.found))


def _measured(case: Case, witness: Witness) -> dict[str, object]:
    """The row of a case."""
    sample = read_sample(case, witness)
    height, width = sample.image.shape[:2]
    row = {"domain": case.domain, "split": case.split, "case": case.name, "height": height, "width": width}
    return row | photograph_measures(sample.image, sample.masks) | mask_measures(sample.masks)


def domain_shift(cases: pd.DataFrame) -> pd.DataFrame:
    """How far each domain is from all others together: a row per domain, a column per measure of MEASURES.

    |value| is the Wasserstein-1 distance (W1: how far, on average, values must be moved to turn the one distribution
    into the other) in units of s, the SD within domains, s² the mean of their variances; its sign is that of the mean
    difference, + where the domain lies above the others. If only means differ, that is the standardized mean
    difference (Cohen's d), and W1 sees differences of shape besides. The others weigh alike, however many cases each
    has, as a training step draws them. NaN where s is 0 or not defined.

    Raises:
        UsageError: fewer than two domains.
    """
    domains = list(dict.fromkeys(cases["domain"]))
    if len(domains) < 2:
        raise UsageError(f"only domain {domains[0]} is here: distances between domains need two")
    return pd.DataFrame({name: _shifts(cases[name], cases["domain"]) for name in MEASURES}, index=domains)


def _shifts(values: pd.Series, domains: pd.Series) -> dict[str, float]:
    """The shift of each domain by one measure; undefined values are left out."""
    groups = {str(key): group.to_numpy(float) for key, group in values.dropna().groupby(domains[values.notna()])}
    variances = [group.var(ddof=1) for group in groups.values() if len(group) > 1]
    within = math.sqrt(float(np.mean(variances))) if variances else math.nan
    shifts = {}
    for domain, own in groups.items():
        others = [group for key, group in groups.items() if key != domain]
        if not others or not within > 0:
            continue
        rest = np.concatenate(others)
        weights = np.concatenate([np.full(len(group), 1 / len(group)) for group in others])
        distance = wasserstein_distance(own, rest, v_weights=weights)
        shifts[domain] = math.copysign(distance / within, own.mean() - np.average(rest, weights=weights))
    return shifts
