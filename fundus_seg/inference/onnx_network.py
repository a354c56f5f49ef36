"""A network of an ONNX folder, in the place of torch's: what stands before and after it is that of any `Predictor`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fundus_seg.errors import CheckpointError, UsageError, one_line
from fundus_seg.inference.calibration import Calibration
from fundus_seg.inference.onnx_folder import graph_of, read_card
from fundus_seg.models.onnx_graph import INPUT, INSTALL


class OnnxNetwork(nn.Module):
    """Photographs (B, 3, s, s), float32 in [-1, 1], on the CPU -> logits (B, 2, s, s), computed by onnxruntime.

    It has no weights of torch, no gradient, and no features of its encoder.

    Args:
        graph: the bytes of a file that `to_onnx` made, or its quantised form.
        spec: of the network that it was made of, as `build_model` has it.

    Raises:
        UsageError: onnxruntime is not installed.
        ValueError: it cannot read the graph.
    """

    def __init__(self, graph: bytes, spec: Mapping[str, str | int]) -> None:
        super().__init__()
        self.spec = dict(spec)
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(f"a network as ONNX is run by onnxruntime: {INSTALL}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of classes that it does not export
            raise ValueError(f"onnxruntime cannot read it ({one_line(error)})") from error

    def forward(self, x: Tensor) -> Tensor:
        """Maps photographs x (B, 3, s, s) to logits (B, 2, s, s)."""
        logits: Any = self.session.run(None, {INPUT: x.contiguous().numpy()})[0]
        return torch.from_numpy(logits)


def load_onnx(folder: Path) -> tuple[OnnxNetwork, dict[str, Any], Calibration | None]:
    """The network of an ONNX folder, its usage, and what calibrates it.

    Raises:
        UsageError: onnxruntime is not installed.
        CheckpointError: a file of the folder is missing or damaged.
    """
    card = read_card(folder)
    try:
        network = OnnxNetwork(graph_of(folder, card), card.model_spec)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}; export the network again") from error
    side = card.model_spec.get("image_size")
    if network.session.get_inputs()[0].shape[1:] != [3, side, side]:
        raise CheckpointError(f"{folder}: its graph does not take photographs of {side}x{side}; export it again")
    return network, card.usage, card.calibration
