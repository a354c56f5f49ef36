from __future__ import annotations

import subprocess
import sys

import pytest

SECOND_CALL = """
from fundus_seg import torchvision_compat
first = torchvision_compat.import_module("segmentation_models_pytorch")
assert torchvision_compat.import_module("segmentation_models_pytorch") is first
import torch
assert torch.ops.torchvision.nms  # by the extension, or declared
first.encoders.get_encoder("mobilenet_v2", weights=None)
"""

ALREADY_DECLARED = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda dets, scores, iou_threshold: dets + 1, "CPU")
from fundus_seg import torchvision_compat
torchvision_compat.import_module("json")
assert not hasattr(torch.ops.torchvision, "qnms"), "declared although nms was there"
assert torch.ops.torchvision.nms(torch.zeros(1), torch.zeros(1), 0.5) == 1
"""

NO_TORCHVISION = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else find_spec(name, *rest)
import torch
from fundus_seg import torchvision_compat
torchvision_compat.import_module("json")
assert not hasattr(torch.ops.torchvision, "nms")
"""

COMPILER_DEFERRED = """
import sys
from fundus_seg import torchvision_compat
import fundus_seg.models
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
with torchvision_compat._compiler_deferred():
    from torch._dynamo import disable
    from torch._dynamo.utils import is_compile_supported
double = disable(lambda number: 2 * number)
assert (double(2), double(3)) == (4, 6)
import torch._dynamo.utils
assert is_compile_supported("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
assert torch.compile(double, backend="eager")(4) == 8
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [COMPILER_DEFERRED, SECOND_CALL, ALREADY_DECLARED, NO_TORCHVISION])
def test_in_a_fresh_process(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
