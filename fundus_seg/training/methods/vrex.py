"""V-REx: training minimises the variance of the domains' risks as well as their mean.

D. Krueger, E. Caballero, J.-H. Jacobsen, A. Zhang, J. Binas, D. Zhang, R. Le Priol, A. Courville: Out-of-Distribution
Generalization via Risk Extrapolation (REx). ICML 2021. As in DomainBed (I. Gulrajani, D. Lopez-Paz: In Search of Lost
Domain Generalization. ICLR 2021) the risks are averaged, not summed, and the default weights and warm-up are
DomainBed's; DomainBed resets the optimiser after the warm-up, this implementation does not.
"""

from __future__ import annotations

from torch import Tensor

from fundus_seg.training.method import Method, domain_risks
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
        """mean_d R_d + b mean_d (R_d - mean R)^2 with the risk R_d (2,) of domain d; the recorded loss is this sum."""
        risks = domain_risks(loss_of, logits, masks, domains)
        penalty = risks.var(dim=0, correction=0)
        return risks.mean(dim=0) + (1.0 if step < self.warm_up else self.beta) * penalty
