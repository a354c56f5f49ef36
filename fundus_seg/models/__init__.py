"""The segmentation network: DeepLabV3+ with an ASPP of any operator in OPERATORS."""

from fundus_seg.models.bake import bake
from fundus_seg.models.deeplab import build_model, scale_photographs
from fundus_seg.models.operators import OPERATORS

__all__ = ["OPERATORS", "bake", "build_model", "scale_photographs"]
