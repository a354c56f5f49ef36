"""What `fundus-seg data variance` has measured, as its report reads it: without torch."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fundus_seg.errors import Problem


@dataclass(frozen=True, eq=False)
class FeatureVariances:
    """How much an encoder's features vary within photographs and across them.

    Attributes:
        phantom: whether synthetic photographs are among them.
        splits: the splits that were read, in words.
        encoder: name of the encoder.
        weights: "imagenet", "none", or the path of a state dict.
        size: height and width at which the encoder saw the photographs.
        rows: one row per domain, shift and stage: domain, shift (the largest random translation, as a share of the
            side), stage (from 1), stride, channels, photographs, intra, cross (see `statistics.layout`) and their
            ratio, cross / intra.
        problems: the files that are missing or cannot be read; their photographs are left out.
    """

    phantom: bool
    splits: str
    encoder: str
    weights: str
    size: int
    rows: pd.DataFrame
    problems: tuple[Problem, ...]
