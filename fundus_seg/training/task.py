"""The losses of two sigmoid channels, disc and cup: binary cross-entropy, with soft Dice or without, or your own."""

from __future__ import annotations

from collections.abc import Callable

import torch
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


NOT_ANNOTATED = 255
"""What every pixel of a mask holds, from the batch to the loss, if nobody has annotated its structure in that case."""


def marked(masks: Tensor, annotated: Tensor) -> Tensor:
    """The masks, with NOT_ANNOTATED throughout those of structures that are not annotated.

    The mark lies in the masks, so that it stays with its case whatever a method of domain generalisation picks.

    Args:
        masks: (B, 2, H, W) of 0 and 1.
        annotated: (B, 2) bool, on the CPU. If all are annotated, the masks themselves are returned.
    """
    if annotated.all():
        return masks
    return masks.masked_fill(~annotated[..., None, None].to(masks.device), NOT_ANNOTATED)


def annotated_in(masks: Tensor) -> Tensor:
    """Whether each structure of each case is annotated, (B, 2) bool, of masks (B, 2, H, W) as a method gets them."""
    return masks[:, :, 0, 0] != NOT_ANNOTATED


def over_annotated(loss_of: Loss) -> Loss:
    """The loss of each structure over the cases in which it is annotated, for masks that may be `marked`.

    The loss itself is given those cases alone, without marks: of both structures where it is asked for the disc, whose
    cup is empty where it is not annotated, and then once more for the cup. Where no case has a structure, its loss is
    0, as are its gradients.
    """

    def over(logits: Tensor, masks: Tensor) -> Tensor:
        known = annotated_in(masks)
        masks = masks.masked_fill(~known[..., None, None], 0)
        whole = loss_of(logits, masks)
        losses = []
        for loss, own, structure in zip(whole, known.unbind(dim=1), range(len(whole)), strict=True):
            if not own.all():
                loss = loss_of(logits[own], masks[own])[structure] if own.any() else 0 * loss
            losses.append(loss)
        return torch.stack(losses)

    return over


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
