"""Scores of masks, from plain arrays: overlap, border distances, clinical measures, anatomical validity.

A module is imported when one of its names is first used, so that a table of metrics can name them all at no cost.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names are in __init__.pyi
