"""Training of one run."""

from fundus_seg.training.fit import train
from fundus_seg.training.method import Method
from fundus_seg.training.observer import Observer

__all__ = ["Method", "Observer", "train"]
