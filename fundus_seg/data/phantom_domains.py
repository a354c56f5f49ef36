"""The four synthetic centres of the phantom: who is photographed, with which camera, and who draws the truth.

Every number that makes one domain differ from another stands in `PHANTOM_DOMAINS`, and nowhere else. The domains are
named after the real ones that they stand in for (A Drishti-GS, B RIM-ONE r3, C and D the two halves of REFUGE) and lean
towards them in framing and cup size; they are not fitted to them. Pairs are (mean, standard deviation) over the cases.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Eyes:
    """Whose eyes come to the centre; lengths are shares of the side of the frame."""

    disc_height: tuple[float, float]
    cup_to_disc: tuple[float, float]  # of the true heights; the annotator's ratio follows from the drawn ones
    pigment: tuple[float, float]  # 0 blond to 1 dark fundus
    tessellation: float  # contrast of the choroidal vessels seen through the retina
    atrophy: float  # share of eyes with a peripapillary crescent, the pale neighbour that is not disc


@dataclass(frozen=True)
class Camera:
    """What stands between the eye and the file."""

    gain: tuple[float, float, float]  # red, green, blue: light source, filter and white balance together
    gamma: float  # response exponent; below 1 lifts the shadows
    haze: float  # share of the light that is stray light of the mean colour, a loss of contrast
    vignetting: float  # loss of light in the corners
    unevenness: float  # amplitude of the illumination's other slow changes
    blur: float  # standard deviation of the point spread, in pixels of the 800-pixel frame
    noise: float  # standard deviation, as a share of full scale
    jpeg_quality: int  # of the file that the centre kept


@dataclass(frozen=True)
class Annotator:
    """Habit of the hand that draws: the true outline scaled, shifted to the temporal side, and wobbling."""

    disc_scale: float
    cup_scale: float
    cup_shift: float  # share of the cup's width
    wobble: float  # relative amplitude of the slow deviations, new in every case


@dataclass(frozen=True)
class PhantomDomain:
    """One synthetic centre."""

    eyes: Eyes
    camera: Camera
    annotator: Annotator


PHANTOM_DOMAINS: dict[str, PhantomDomain] = {
    "A": PhantomDomain(
        Eyes(
            disc_height=(0.66, 0.045), cup_to_disc=(0.62, 0.11), pigment=(0.60, 0.15), tessellation=0.08, atrophy=0.30
        ),
        Camera(
            (0.98, 0.92, 0.75),
            gamma=1.10,
            haze=0.08,
            vignetting=0.30,
            unevenness=0.05,
            blur=3.2,
            noise=0.008,
            jpeg_quality=92,
        ),
        Annotator(disc_scale=1.01, cup_scale=1.05, cup_shift=0.00, wobble=0.012),
    ),
    "B": PhantomDomain(
        Eyes(
            disc_height=(0.58, 0.055), cup_to_disc=(0.48, 0.12), pigment=(0.45, 0.20), tessellation=0.14, atrophy=0.35
        ),
        Camera(
            (1.12, 0.72, 0.80),
            gamma=0.95,
            haze=0.22,
            vignetting=0.15,
            unevenness=0.10,
            blur=4.5,
            noise=0.016,
            jpeg_quality=80,
        ),
        Annotator(disc_scale=1.04, cup_scale=0.94, cup_shift=0.03, wobble=0.025),
    ),
    "C": PhantomDomain(
        Eyes(
            disc_height=(0.60, 0.045), cup_to_disc=(0.47, 0.10), pigment=(0.50, 0.20), tessellation=0.10, atrophy=0.45
        ),
        Camera(
            (1.08, 1.00, 1.10),
            gamma=0.85,
            haze=0.03,
            vignetting=0.20,
            unevenness=0.06,
            blur=1.4,
            noise=0.012,
            jpeg_quality=90,
        ),
        Annotator(disc_scale=0.99, cup_scale=1.00, cup_shift=0.00, wobble=0.018),
    ),
    "D": PhantomDomain(
        Eyes(
            disc_height=(0.56, 0.050), cup_to_disc=(0.52, 0.11), pigment=(0.35, 0.20), tessellation=0.18, atrophy=0.35
        ),
        Camera(
            (0.88, 1.08, 0.95),
            gamma=1.00,
            haze=0.12,
            vignetting=0.35,
            unevenness=0.08,
            blur=2.4,
            noise=0.020,
            jpeg_quality=70,
        ),
        Annotator(disc_scale=1.00, cup_scale=1.02, cup_shift=-0.02, wobble=0.018),
    ),
}
