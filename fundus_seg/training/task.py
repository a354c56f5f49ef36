"""The losses of two sigmoid channels, disc and cup: binary cross-entropy, with soft Dice or without, or your own."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from fundus_seg.builtins import LOSSES
from fundus_seg.errors import UsageError
from fundus_seg.plugins import blamed, find
from fundus_seg.protocol import STRUCTURES

Loss = Callable[[Tensor, Tensor], Tensor]
"""logits (B, 2, H, W), masks (B, 2, H, W) of 0 and 1 -> losses (2,), one per structure; their mean is minimised."""


def binary_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over cases and pixels of -[y log s(z) + (1 - y) log(1 - s(z))], one value per structure.

    z are the logits, y the masks, s is the sigmoid.
    """
    losses = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    return losses.mean(dim=(0, 2, 3))


def soft_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 sum p y + 1) / (sum p + sum y + 1), the mean over cases, one value per structure.

    p are the probabilities, y the masks; the sums run over the pixels of one case. The loss is that of F. Milletari,
    N. Navab, S.-A. Ahmadi: V-Net (3DV 2016), but with p and y in the denominator where theirs has the squares, as in
    nnU-Net. The smoothing is 1, in pixels: where a case's truth is empty the loss is q / (q + 1) with q = sum p, which
    grows from 0 to 1 with the area that is predicted; where both are empty it is 0.
    """
    probabilities, truths = logits.float().sigmoid(), masks.float()
    shared = (probabilities * truths).sum(dim=(2, 3))
    sizes = (probabilities + truths).sum(dim=(2, 3))
    return (1 - (2 * shared + 1) / (sizes + 1)).mean(dim=0)


def cross_entropy_and_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """The sum of `binary_cross_entropy` and `soft_dice_loss`, in float32, one value per structure.

    nnU-Net minimises this sum (F. Isensee et al.: nnU-Net: a self-configuring method for deep learning-based biomedical
    image segmentation. Nature Methods 2021).
    """
    return binary_cross_entropy(logits.float(), masks) + soft_dice_loss(logits, masks)


def find_loss(name: str) -> Loss:
    """The loss `name`: a key of `fundus_seg.builtins.LOSSES`, or `package.module:function` of your own.

    Raises:
        UsageError: the name is unknown or the plugin cannot be loaded; when the loss is called, it raises, or does not
            return one value per structure.
    """
    loss_of: Loss = find("loss", name, LOSSES)

    def checked(logits: Tensor, masks: Tensor) -> Tensor:
        with blamed(name):
            losses = loss_of(logits, masks)
        return check_losses(name, losses)

    return checked


def check_losses(name: str, losses: object) -> Tensor:
    """The losses themselves, if they are a tensor (2,).

    Args:
        name: the loss or the method that returned them, for the error message.
        losses: what it returned.

    Raises:
        UsageError: they are anything else.
    """
    if not isinstance(losses, Tensor) or losses.shape != (len(STRUCTURES),):
        given = f"losses {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise UsageError(f"{name}: gives {given}: return one per structure, (2,)")
    return losses
