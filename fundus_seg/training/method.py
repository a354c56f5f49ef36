"""The base of methods of domain generalisation, which change the batch, the features or the loss in training.

The network itself does not change: a checkpoint holds nothing of a method, which does nothing in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fundus_seg.models.deeplab import DeepLabV3Plus
from fundus_seg.training.task import Loss, annotated_in


class Method:
    """Empirical risk minimisation: the cases of all domains are pooled. Methods override what they change.

    A method draws random numbers from torch's global generator, which is seeded at each epoch; whatever else varies
    must follow from `step`, or be in `state`. An interrupted run then continues to the same bits with a new object of
    the method.
    """

    def attach(self, network: DeepLabV3Plus) -> None:
        """Called once with the network, on the CPU, before the first step; register forward hooks here.

        Hooks must do nothing unless the network is in training mode, and must not add to its state dict. The network
        knows its mode, its modules do not: those of an encoder that `model.freeze` freezes always evaluate.
        """

    def batch(self, images: Tensor, masks: Tensor, domains: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The photographs and masks that the step trains on.

        Args:
            images: (B, 3, S, S) uint8, grey values 0 to 255; the returned ones may be floats in the same range.
            masks: (B, 2, S, S) of 0 and 1, channels ("disc", "cup"); where a structure is not annotated in a case, its
                mask is `fundus_seg.training.task.NOT_ANNOTATED` throughout, and must stay so.
            domains: (B,) number of each case's source domain, on the CPU.
            step: number of optimiser steps of the run before this one.
        """
        return images, masks

    def loss(self, loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor, step: int) -> Tensor:
        """Losses (2,), one per structure; their mean is minimised.

        Args:
            loss_of: the loss of the setting `train.loss`, over those of the cases it is given in which a structure is
                annotated; 0 where there is none.
            logits: (B, 2, S, S).
            masks: (B, 2, S, S), as `batch` returned them.
            domains: as in `batch`.
            step: as in `batch`.
        """
        return loss_of(logits, masks)

    def state(self) -> dict[str, Tensor]:
        """What the next steps depend on beside `step`: tensors by name, which the run keeps until its last epoch."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, on the CPU; called before the first step of a run that goes on."""


def domain_risks(loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor) -> Tensor:
    """Losses (D, 2) of the D domains in a batch, each computed on the cases of that domain.

    The loss is 0 where no case of a domain has a structure annotated: `domain_shares` is 0 there.
    """
    return torch.stack([loss_of(logits[cases], masks[cases]) for cases in _each_domain(domains)])


def domain_shares(masks: Tensor, domains: Tensor) -> Tensor:
    """The share (D, 2) that each of the D domains in a batch has in the cases that a structure is annotated in.

    1 / D where all are annotated, in float64; 0 where no case of the domain is.

    Args:
        masks: (B, 2, S, S), as a method gets them.
        domains: (B,) as a method gets them.
    """
    known = annotated_in(masks)
    counts = torch.stack([known[cases].sum(dim=0) for cases in _each_domain(domains)]).double()
    return counts / counts.sum(dim=0).clamp(min=1)


def _each_domain(domains: Tensor) -> list[Tensor]:
    """The cases of each domain in a batch, (B,) bool."""
    return [domains == domain for domain in domains.unique()]


def draw_partners(domains: Tensor) -> Tensor:
    """For each case the index (B,) of a case of another domain, drawn at random; of any case if there is one domain."""
    others = domains[:, None] != domains[None]
    weights = others if others.any() else torch.ones_like(others)
    return torch.multinomial(weights.float(), num_samples=1).squeeze(1)
