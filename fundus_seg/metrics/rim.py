"""The neuroretinal rim around the clock, and the ISNT rule.

The rule is that of Jonas, Gusek & Naumann, "Optic disc, cup and neuroretinal rim size, configuration and correlations
in normal eyes", Investigative Ophthalmology & Visual Science 29, 1988. The width of the rim is radial, as in the Disc
Damage Likelihood Scale (Spaeth et al., Transactions of the American Ophthalmological Society 100, 2002): on a ray from
the centroid of the disc, the distance from the outermost pixel of the cup to that of the disc. It is the distance from
the centroid if the ray meets no cup, and 0 if the cup reaches as far as the disc. Rays start at the centroid of the
disc, not of the cup, because it exists without a cup and does not move as the cup grows.

The clock is that of the photograph as it is displayed: 12 above, 3 on the right. Above is superior in both eyes; nasal
is on the right in a photograph of a right eye (OD), on the left in one of a left eye (OS).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fundus_seg.metrics.overlap import Mask, check_frames
from fundus_seg.metrics.surface import check_spacing

HOURS = 12
_RAYS = 10  # an hour, so one every three degrees
_STEPS = 4  # along a ray for each pixel


@dataclass(frozen=True)
class IsntOrder:
    """Which steps of inferior >= superior >= nasal >= temporal rim hold; None for a step that cannot be decided."""

    inferior_superior: bool | None
    superior_nasal: bool | None
    nasal_temporal: bool | None

    @property
    def holds(self) -> bool | None:
        """The whole rule: False as soon as one step fails, None while one is undecided."""
        steps = (self.inferior_superior, self.superior_nasal, self.nasal_temporal)
        if False in steps:
            return False
        return None if None in steps else True

    @property
    def broken(self) -> tuple[str, ...]:
        """The steps that fail, as `inferior<superior`."""
        return tuple(name.replace("_", "<") for name, holds in asdict(self).items() if holds is False)


def rim_profile(disc: Mask, cup: Mask, *, spacing: tuple[float, float] = (1.0, 1.0)) -> NDArray[np.float64]:
    """Width of the rim by clock hour, (12,): the mean over the rays within 15 degrees of 12, 1, 2 ... 11 o'clock.

    Args:
        disc: (H, W) mask of the whole disc, cup included, boolean.
        cup: (H, W) mask of the cup, boolean.
        spacing: Height and width of a pixel, in the unit of the widths to be returned. Widths are exact to about a
            quarter of a pixel.

    Returns:
        All NaN if the disc is empty.

    Raises:
        ValueError: The masks differ in shape, are not boolean or not two-dimensional, or the spacing is not two
            finite positive numbers.
    """
    check_frames(disc, cup)
    check_spacing(spacing)
    if not disc.any():
        return np.full(HOURS, math.nan)
    pixels = np.argwhere(disc)
    centre = pixels.mean(axis=0)
    furthest = np.hypot(*(np.abs(pixels - centre).max(axis=0) * spacing))
    radii = np.arange(0, furthest + min(spacing), min(spacing) / _STEPS)
    angles = 2 * np.pi * ((np.arange(HOURS * _RAYS) + 0.5) / _RAYS - 0.5) / HOURS  # hour 12 is the first
    rows = np.rint(centre[0] - np.outer(np.cos(angles), radii) / spacing[0]).astype(int)
    columns = np.rint(centre[1] + np.outer(np.sin(angles), radii) / spacing[1]).astype(int)
    within = (rows >= 0) & (rows < disc.shape[0]) & (columns >= 0) & (columns < disc.shape[1])
    rows, columns = np.where(within, rows, 0), np.where(within, columns, 0)
    disc_reach, cup_reach = (np.where(within & mask[rows, columns], radii, 0).max(axis=1) for mask in (disc, cup))
    widths = np.maximum(disc_reach - cup_reach, 0)
    return widths.reshape(HOURS, _RAYS).mean(axis=1)


def isnt_order(profile: NDArray[np.float64], laterality: Literal["OD", "OS"] | None = None) -> IsntOrder:
    """The ISNT rule of normal eyes (Jonas et al. 1988), on the mean width in each quadrant of three clock hours.

    Args:
        profile: (12,) as `rim_profile` gives it.
        laterality: Right eye (OD), left eye (OS), or None if it is unknown: the nasal side is then unknown too, and
            only inferior >= superior is decided. A profile with NaN leaves every step undecided.

    Raises:
        ValueError: Not twelve hours, or another laterality.
    """
    if profile.shape != (HOURS,):
        raise ValueError(f"a rim profile is (12,), got shape {profile.shape}")
    if laterality not in ("OD", "OS", None):
        raise ValueError(f"laterality is 'OD', 'OS' or None, got {laterality!r}")
    superior, right, inferior, left = (profile[[hour - 1, hour, (hour + 1) % HOURS]].mean() for hour in (0, 3, 6, 9))
    if laterality is None:
        right = left = math.nan
    nasal, temporal = (left, right) if laterality == "OS" else (right, left)
    return IsntOrder(_at_least(inferior, superior), _at_least(superior, nasal), _at_least(nasal, temporal))


def _at_least(first: float, second: float) -> bool | None:
    return None if math.isnan(first) or math.isnan(second) else bool(first >= second)
