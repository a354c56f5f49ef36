"""V-REx: training minimises the variance of the domains' risks as well as their mean.

D. Krueger, E. Caballero, J.-H. Jacobsen, A. Zhang, J. Binas, D. Zhang, R. Le Priol, A. Courville: Out-of-Distribution
Generalization via Risk Extrapolation (REx). ICML 2021. As in DomainBed (I. Gulrajani, D. Lopez-Paz: In Search of Lost
Domain Generalization. ICLR 2021) the risks are averaged, not summed, and the default weights and warm-up are
DomainBed's; DomainBed resets the optimiser after the warm-up, this implementation does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fundus_seg.training.method import Method, domain_risks, domain_shares
from fundus_seg.training.task import Loss


class VREx(Method):
    """Adds the variance of the domains' risks to their mean, for each structure.

    Args:
        beta: weight of the variance after the warm-up; during it the weight is 1.
        warm_up: number of steps.
    """

    def __init__(self, beta: float = 10.0, warm_up: int = 500) -> None:
        self.beta = beta
        self.warm_up = warm_up

    def loss(self, loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor, step: int) -> Tensor:
        """mean_d R_d + b mean_d (R_d - mean R)^2 with the risk R_d (2,) of domain d; the recorded loss is this sum.

        The means are over the domains that have annotated cases of the structure.
        """
        risks = domain_risks(loss_of, logits, masks, domains)
        there = domain_shares(masks, domains) > 0
        if there.all():
            return self._objective(risks, step)
        each = zip(risks.unbind(dim=1), there.unbind(dim=1), strict=True)
        return torch.stack([self._objective(own[have], step) if have.any() else own.sum() for own, have in each])

    def _objective(self, risks: Tensor, step: int) -> Tensor:
        """The mean of risks (D, ...) over domains, and their weighted variance."""
        penalty = risks.var(dim=0, correction=0)
        return risks.mean(dim=0) + (1.0 if step < self.warm_up else self.beta) * penalty
