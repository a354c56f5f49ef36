"""The four synthetic centres of the phantom: their eyes, their camera, and the annotator who draws the truth.

All differences between the domains stand in `PHANTOM_DOMAINS`. The domains have the keys of the real ones that they
replace (A Drishti-GS, B RIM-ONE r3, C and D the two halves of REFUGE). They resemble these in framing and cup size, but
they are not fitted to them. Pairs of numbers are (mean, standard deviation) over the cases.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Eyes:
    """The eyes that are photographed at the centre."""

    disc: tuple[float, float]  # height, as a share of the frame's side
    cup_to_disc: tuple[float, float]  # ratio of the true heights; the annotator's follows from the drawn outlines
    pigment: tuple[float, float]  # of the fundus, 0 blond to 1 dark
    tessellation: float  # contrast of the choroidal vessels seen through the retina
    atrophy: float  # share of eyes with a peripapillary crescent, the pale neighbour that is not disc


@dataclass(frozen=True)
class Camera:
    """What the camera makes of the light from an eye, up to the file that is kept."""

    gain: tuple[float, float, float]  # red, green, blue: light source, filter and white balance together
    gamma: float  # exponent of the response; below 1 lifts the shadows
    haze: float  # share of stray light, of the mean colour, which lowers the contrast
    falloff: float  # loss of light from the middle of the frame to the corners
    uneven: float  # amplitude of other slow changes of the illumination
    blur: float  # standard deviation of the point spread, in pixels of the frame
    noise: float  # standard deviation, in grey levels
    jpeg: int  # JPEG quality of the file


@dataclass(frozen=True)
class Annotator:
    """How an annotator changes the true outlines: they are scaled, shifted to the temporal side, and uneven."""

    disc_scale: float
    cup_scale: float
    cup_shift: float  # shift of the cup, as a share of its width
    wobble: float  # relative amplitude of slow deviations, drawn anew in every case


@dataclass(frozen=True)
class PhantomDomain:
    """One synthetic centre."""

    eyes: Eyes
    camera: Camera
    annotator: Annotator


PHANTOM_DOMAINS: dict[str, PhantomDomain] = {
    "A": PhantomDomain(  # soft, warm, little noise; large discs drawn tight, large cups, steady outlines
        Eyes(disc=(0.63, 0.045), cup_to_disc=(0.56, 0.11), pigment=(0.60, 0.15), tessellation=0.08, atrophy=0.30),
        Camera(gain=(1.02, 0.98, 0.93), gamma=1.00, haze=0.08, falloff=0.25, uneven=0.05, blur=3.0, noise=2.0, jpeg=92),
        Annotator(disc_scale=0.97, cup_scale=1.00, cup_shift=0.00, wobble=0.012),
    ),
    "B": PhantomDomain(  # red, hazy, blurred; discs drawn wide and cups tight, unsteady outlines
        Eyes(disc=(0.58, 0.055), cup_to_disc=(0.48, 0.12), pigment=(0.45, 0.20), tessellation=0.14, atrophy=0.35),
        Camera(gain=(1.08, 0.82, 0.82), gamma=0.95, haze=0.16, falloff=0.15, uneven=0.10, blur=4.2, noise=4.0, jpeg=80),
        Annotator(disc_scale=1.04, cup_scale=0.94, cup_shift=0.03, wobble=0.025),
    ),
    "C": PhantomDomain(  # bright, pink, sharp; small cups and many crescents, drawn true to size
        Eyes(disc=(0.60, 0.045), cup_to_disc=(0.47, 0.10), pigment=(0.50, 0.20), tessellation=0.10, atrophy=0.45),
        Camera(gain=(1.06, 0.97, 1.05), gamma=0.90, haze=0.03, falloff=0.20, uneven=0.06, blur=1.4, noise=3.0, jpeg=90),
        Annotator(disc_scale=0.99, cup_scale=1.00, cup_shift=0.00, wobble=0.018),
    ),
    "D": PhantomDomain(  # greenish, grainy, compressed; small discs in light, tessellated fundi
        Eyes(disc=(0.56, 0.050), cup_to_disc=(0.52, 0.11), pigment=(0.35, 0.20), tessellation=0.18, atrophy=0.35),
        Camera(gain=(0.93, 1.06, 0.95), gamma=1.00, haze=0.12, falloff=0.35, uneven=0.08, blur=2.4, noise=5.0, jpeg=70),
        Annotator(disc_scale=1.00, cup_scale=1.02, cup_shift=-0.02, wobble=0.018),
    ),
}
