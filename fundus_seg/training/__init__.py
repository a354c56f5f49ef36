"""Training of one run."""

from fundus_seg.training.fit import train
from fundus_seg.training.method import Method

__all__ = ["Method", "train"]
