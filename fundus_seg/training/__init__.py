"""Training of one run."""

from fundus_seg.training.fit import train

__all__ = ["train"]
