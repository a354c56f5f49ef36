"""The phantom: four synthetic domains, so that everything runs without the data of patients."""

from fundus_seg.phantom.make import PHANTOM_MARKER, PHANTOM_VERSION, make_phantom

__all__ = ["PHANTOM_MARKER", "PHANTOM_VERSION", "make_phantom"]
