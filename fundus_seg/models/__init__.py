"""The segmentation network: DeepLabV3+ with an ASPP of plain, depthwise or translation-variant convolutions."""

from fundus_seg.models.aspp import OPERATORS
from fundus_seg.models.bake import bake
from fundus_seg.models.deeplab import build_model, scale_photographs

__all__ = ["OPERATORS", "bake", "build_model", "scale_photographs"]
