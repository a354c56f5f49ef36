"""Domains, photographs and masks, from folders to training batches."""

from fundus_seg.data.dataset import FundusDataset, Sample
from fundus_seg.data.layout import DataRoot, open_root
from fundus_seg.phantom.make import make_phantom

__all__ = ["DataRoot", "FundusDataset", "Sample", "make_phantom", "open_root"]
