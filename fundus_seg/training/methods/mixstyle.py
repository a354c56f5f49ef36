"""MixStyle: the style of a case's features (mean and standard deviation) is mixed with that of another domain's case.

K. Zhou, Y. Yang, Y. Qiao, T. Xiang: Domain Generalization with MixStyle. ICLR 2021; this is the variant with domain
labels. The paper mixes after the first residual stages of a ResNet; here the encoder's features at strides 4 and 8 are
mixed, where a ResNet's first two stages end. The decoder also reads the mixed features at stride 4.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fundus_seg.errors import UsageError
from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.models.encoders import Encoder
from fundus_seg.protocol import DEEP_STRIDE
from fundus_seg.training.method import Method, draw_partners

_STAGES = slice(2, 4)
"""The encoder's features at strides 4 and 8."""


class MixStyle(Method):
    """Mixes the style of features in training, independently at two stages.

    Args:
        p: probability that a stage mixes in a step.
        alpha: parameter of Beta(alpha, alpha), from which the weight of each case's own style is drawn.
    """

    def __init__(self, p: float = 0.5, alpha: float = 0.1) -> None:
        self.p = p
        self.weights = torch.distributions.Beta(alpha, alpha)
        self.domains = torch.empty(0)

    def attach(self, network: DeepLabV3Plus) -> None:
        """Registers a hook on each module at which one of the encoder's first two stages ends."""
        for module in _ends_of_stages(network.encoder):
            module.register_forward_hook(partial(self._mix, network))

    def batch(self, images: Tensor, masks: Tensor, domains: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Returns the batch unchanged, and stores its domains for the hooks."""
        self.domains = domains
        return images, masks

    def _mix(self, network: nn.Module, _: nn.Module, __: Any, features: Tensor) -> Tensor:
        """What goes on to the next stage; asks the network for its mode, since a frozen encoder always evaluates."""
        if not network.training or torch.rand(()) >= self.p:
            return features
        own = self.weights.sample((len(features), 1, 1, 1)).to(features.device)
        return mix_styles(features, draw_partners(self.domains), own)


def mix_styles(features: Tensor, partners: Tensor, own: Tensor) -> Tensor:
    """Features x (B, C, H, W) with mixed means and standard deviations over H and W.

        (l s(x) + (1 - l) s(x')) (x - m(x)) / s(x) + l m(x) + (1 - l) m(x')

    x' are the partners, (B,) indices into the batch, l = `own` (B, 1, 1, 1). No gradient flows through m and s.
    """
    x = features.float()
    with torch.no_grad():
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        deviation = (variance + 1e-6).sqrt()
        mixed_mean = own * mean + (1 - own) * mean[partners]
        mixed_deviation = own * deviation + (1 - own) * deviation[partners]
    return ((x - mean) / deviation * mixed_deviation + mixed_mean).to(features.dtype)


def _ends_of_stages(encoder: Encoder) -> list[nn.Module]:
    """The outermost module that makes the features of each stage.

    A pass over zeros finds them, because encoders name their parts as they like.
    """
    calls: list[tuple[nn.Module, Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda *call: calls.append(call))
        for module in encoder.body.modules()
        if module is not encoder.body
    ]
    mode = encoder.training
    with torch.no_grad():
        features = encoder.eval().body(torch.zeros(1, 3, 4 * DEEP_STRIDE, 4 * DEEP_STRIDE))
    encoder.train(mode)
    for hook in hooks:
        hook.remove()
    ends = [
        [module for module, given, output in calls if output is feature and not any(x is feature for x in given)]
        for feature in features[_STAGES]
    ]
    if not ends or not all(ends):  # a transformer has no stages
        raise UsageError(
            "train.method mixstyle: this encoder has no stages, or hides where they end; choose one such as a ResNet"
        )
    return [modules[-1] for modules in ends]
