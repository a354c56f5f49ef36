"""A network as a graph of ONNX: baked, of the standard's own operations, for any number of photographs of one size.

Where a translation-variant convolution stands, the graph pads the map once, and then slices, multiplies and adds for
each tap of the kernels, which are constants (`onnx_operators`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fundus_seg.errors import FundusSegError, UsageError, one_line
from fundus_seg.models.bake import bake
from fundus_seg.models.blocks import count_parameters
from fundus_seg.models.onnx_operators import translations

OPSET = 18
"""Version of ONNX's operations: the earliest with all that the encoders need (resampling with antialiasing)."""
INPUT, OUTPUT = "photographs", "logits"
"""Names of the graph's input (B, 3, H, W), float32 in [-1, 1], and of its output (B, 2, H, W)."""
INSTALL = 'pip install "fundus-seg[onnx]"'
_MOST_BYTES = 2**31 - 2**20
"""A file of ONNX holds less than 2 GiB; some of it is not weights."""
_BYTES_PER_PARAMETER = 4


def to_onnx(network: nn.Module) -> Any:
    """The graph, an `onnx.ModelProto`, of a network that `build_model` made; it holds no path and no code.

    Args:
        network: its attribute `spec` names the size of the photographs, `image_size`.

    Raises:
        UsageError: onnx or onnxscript is not installed.
        FundusSegError: the network has an operation that ONNX does not have, or more weights than a file holds.
    """
    spec: Any = network.spec
    what = f"operator {spec['op']} with encoder {spec['encoder']}"
    baked = bake(network)
    if count_parameters(baked) * _BYTES_PER_PARAMETER > _MOST_BYTES:
        raise FundusSegError(
            f"{what}: more than 2 GiB of weights, which a file of ONNX cannot hold; export it as torch"
        )
    baked = baked.cpu().to(memory_format=torch.contiguous_format)  # the layout whose graph is plain
    images = torch.zeros(2, 3, spec["image_size"], spec["image_size"])  # of one photograph, torch would fix the number
    try:
        import onnxscript.optimizer
    except ImportError as error:
        raise UsageError(f"a network is written as ONNX with onnx and onnxscript: {INSTALL}") from error
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                baked,
                (images,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=translations(),
                optimize=False,
                verbose=False,
            )
            onnxscript.optimizer.optimize_ir(program.model, input_size_limit=_MOST_BYTES, output_size_limit=_MOST_BYTES)
    except Exception as error:  # torch's exporter raises kinds of its own, and whatever a module raises
        raise FundusSegError(f"{what}: cannot be written as ONNX ({_reason(error)}); export it as torch") from error
    model = program.model_proto
    if foreign := sorted({node.domain for node in model.graph.node} - {""}):
        raise FundusSegError(f"{what}: needs operations of {', '.join(foreign)}, which ONNX lacks; export it as torch")
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise FundusSegError(f"{what}: its graph takes one number of photographs alone; export it as torch")
    _forget_origin(model)
    return model


def _forget_origin(model: Any) -> None:
    """Clear what torch notes of each operation: its place in the source, with paths of this machine."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


def _reason(error: BaseException) -> str:
    """The first line of the error that began a chain of them."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(str(error).strip().partition("\n")[0]) or type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, what torch and onnxruntime write a graph with neither warns of its own ways nor logs them."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
