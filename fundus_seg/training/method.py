"""What a method of domain generalisation changes about training: the batch, the features, the loss.

The network that it trains stays a plain one: nothing of a method is in the checkpoint, nor at work in evaluation mode.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.training.task import Loss


class Method:
    """No method at all: empirical risk minimisation over the domains together. Others override what they change.

    Random numbers come from torch's global generator, which every epoch seeds; what else varies must follow from
    `step`. A run then goes on to the same bits after an interruption, on a new object of the method's class.
    """

    def attach(self, network: DeepLabV3Plus) -> None:
        """Told once of the network, on the CPU, before the first step; a place for forward hooks.

        Hooks must leave the network alone while it is not `training`, and must not add to its state dict.
        """

    def batch(self, images: Tensor, masks: Tensor, domains: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The photographs and masks that the step is to see.

        Args:
            images: (B, 3, S, S) uint8, grey values 0 to 255; those returned may be floats of the same range.
            masks: (B, 2, S, S) of 0 and 1, channels ("disc", "cup").
            domains: (B,) number of each case's source domain, on the CPU.
            step: optimiser steps of the run before this one.
        """
        return images, masks

    def loss(self, loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor, step: int) -> Tensor:
        """Losses (2,), one per structure, whose mean is minimised.

        Args:
            loss_of: `train.loss`.
            logits: (B, 2, S, S).
            masks: (B, 2, S, S), as `batch` returned them.
            domains: as in `batch`.
            step: as in `batch`.
        """
        return loss_of(logits, masks)


def domain_risks(loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor) -> Tensor:
    """Losses (D, 2) of the D domains in a batch, each over its own cases."""
    each = [domains == domain for domain in domains.unique()]
    return torch.stack([loss_of(logits[cases], masks[cases]) for cases in each])


def draw_partners(domains: Tensor) -> Tensor:
    """For each case the index (B,) of a case drawn from the other domains; from all where there is but one domain."""
    others = domains[:, None] != domains[None]
    weights = others if others.any() else torch.ones_like(others)
    return torch.multinomial(weights.float(), num_samples=1).squeeze(1)
