"""RSC, representation self-challenging: the features that speak most for the truth are muted, others must do.

Z. Huang, H. Wang, E. P. Xing, D. Huang: Self-Challenging Improves Cross-Domain Generalization. ECCV 2020. The paper
mutes a classifier's last features. Here:

- The features are the deep ones that the decoder reads, which the ASPP makes at stride 16. Those at stride 4, which the
  decoder reads too, stay as they are.
- A class's logit becomes the sum over pixels and structures of (2 y - 1) a, with the logit a and the truth y of 0 or 1;
  structures that are not annotated in a case are left out.
- Steps mute positions and channels in turn, where the paper draws which.
- As in the authors' code, gradients come from a pass through the decoder in evaluation mode, and those cases are
  challenged whose truth loses most probability; in the paper they are drawn, or are those with the largest loss.

A step costs two further forward passes through the decoder, and one backward pass to the deep features. The recorded
loss is that of the muted features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.ops.upsampling import upsample_bilinear
from fundus_seg.training.method import Method
from fundus_seg.training.task import annotated_in


class RSC(Method):
    """Mutes deep features in training.

    Args:
        fraction: share of the positions, or of the channels, that are muted in a case; 0 is plain training to the bit.
        cases: share of the cases of a batch that are challenged. The paper found 1/3 best for both.
    """

    def __init__(self, fraction: float = 1 / 3, cases: float = 1 / 3) -> None:
        self.fraction = fraction
        self.cases = cases
        self.masks = torch.empty(0)
        self.step = 0

    def attach(self, network: DeepLabV3Plus) -> None:
        """Registers a hook before the decoder."""
        network.decoder.register_forward_pre_hook(self._challenge)

    def batch(self, images: Tensor, masks: Tensor, domains: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Returns the batch unchanged, and stores its masks for the hook."""
        self.masks, self.step = masks, step
        return images, masks

    def _challenge(self, decoder: nn.Module, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        if not decoder.training:
            return None
        low, deep = features
        seen, size = low.detach(), self.masks.shape[2:]

        def logits(given: Tensor) -> Tensor:
            return upsample_bilinear(decoder.forward(seen, given), size).float()

        decoder.eval()
        kept = challenge(
            logits, deep.detach(), self.masks, fraction=self.fraction, cases=self.cases, spatial=self.step % 2 == 0
        )
        decoder.train()
        return low, deep * kept


def challenge(
    head: Callable[[Tensor], Tensor], features: Tensor, masks: Tensor, *, fraction: float, cases: float, spatial: bool
) -> Tensor:
    """What features z (B, C, h, w) are multiplied with: 0 where they are muted, else 1.

        g = d/dz sum (2 y - 1) a(z),  muted: the largest of mean_c g, or of mean_hw g

    Of a batch, those cases are muted whose probability of the truth, the mean of sigmoid((2 y - 1) a), falls most by
    it.

    Args:
        head: maps z to logits a (B, 2, H, W).
        features: z, without a graph.
        masks: the truth y (B, 2, H, W), 0 and 1.
        fraction: share of the positions, or of the channels, that are muted.
        cases: share of the cases that are muted.
        spatial: whether positions are muted, (B, 1, h, w), or channels, (B, C, 1, 1).
    """
    features = features.requires_grad_()
    before = head(features)
    signs = (2 * masks.to(before.dtype) - 1) * annotated_in(masks)[..., None, None]
    (gradient,) = torch.autograd.grad((signs * before).sum(), features)
    kept = _mute(gradient.mean(dim=1 if spatial else (2, 3), keepdim=True), fraction)
    after = head(features * kept).detach()
    truth_before, truth_after = ((signs * logits).sigmoid().mean(dim=(1, 2, 3)) for logits in (before.detach(), after))
    spared = _mute((truth_before - truth_after)[None], cases)
    return torch.maximum(kept, spared.view(-1, 1, 1, 1).to(kept.dtype))


def _mute(values: Tensor, share: float) -> Tensor:
    """0 at the largest values of each row (first dimension), a share of them, and 1 elsewhere."""
    flat = values.flatten(1)
    largest = flat.topk(round(share * flat.shape[1]), dim=1).indices
    return torch.ones_like(flat).scatter(1, largest, 0.0).view_as(values)
