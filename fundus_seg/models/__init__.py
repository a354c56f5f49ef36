"""The segmentation network: DeepLabV3+ with an ASPP of any operator."""

from fundus_seg.models.bake import bake
from fundus_seg.models.deeplab import build_model, scale_photographs
from fundus_seg.models.positions import measure_layers

__all__ = ["bake", "build_model", "measure_layers", "scale_photographs"]
