"""A graph of ONNX whose convolutions and matrix products compute with whole numbers of 8 bits.

The first and the last convolution and the depthwise ones, which hold few weights, stay in float32, and so do kernels of
translation-variant convolutions. With these in 8 bits too, the starter's masks differed in 1.1 % of the pixels of 24
phantom photographs, and so in 0.3 %; its file has 4.8 MB instead of 4.4, and of 15.3 in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fundus_seg.errors import FundusSegError
from fundus_seg.inference.onnx_check import MOST_LOST, mean_dice
from fundus_seg.inference.onnx_samples import Sample
from fundus_seg.inference.predict import Predictor
from fundus_seg.models import scale_photographs
from fundus_seg.models.onnx_graph import INPUT, quiet
from fundus_seg.protocol import STRUCTURES

_QUANTISED = ["Conv", "MatMul"]
"""Operations that compute in 8 bits."""


def in_eight_bits(graph: Any, samples: Sequence[Sample]) -> Any:
    """The graph quantised by onnxruntime, statically: a scale for each channel of weights, and for each map.

    Args:
        graph: an `onnx.ModelProto`.
        samples: photographs whose maps give the ranges that 8 bits divide.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.left, None)
            if sample is None:
                return None
            image = scale_photographs(torch.from_numpy(sample.seen.transpose(2, 0, 1)[None].copy()))
            return {INPUT: image.numpy()}

    with quiet(), tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "int8.onnx")
        quantize_static(
            graph,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_exclude=_in_float(graph),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _in_float(graph: Any) -> list[str]:
    """Names of the first, the last and the depthwise convolutions."""
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    depthwise = [node for node in convolutions if any(each.name == "group" and each.i > 1 for each in node.attribute)]
    return [node.name for node in (convolutions[0], convolutions[-1], *depthwise)]


def refuse_lossy(original: Predictor, quantised: Predictor, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Compare the scores of a network in 8 bits with those of the original one.

    Returns:
        The mean Dice of each structure, `before` and `after`.

    Raises:
        FundusSegError: a structure lost more than MOST_LOST points.
    """
    before, after = mean_dice(original, samples), mean_dice(quantised, samples)
    for structure in STRUCTURES:
        if not before[structure] - after[structure] <= MOST_LOST:
            raise FundusSegError(
                f"in 8 bits the mean Dice of the {structure} is {after[structure]:.2f}, not {before[structure]:.2f}: "
                f"it may lose {MOST_LOST} points; nothing was written. Export without --int8, or calibrate on more "
                "photographs"
            )
    return {"before": before, "after": after}
