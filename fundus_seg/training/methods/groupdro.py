"""GroupDRO: training weighs the domains, and those whose risk is high weigh ever more.

S. Sagawa, P. W. Koh, T. B. Hashimoto, P. Liang: Distributionally Robust Neural Networks for Group Shifts: On the
Importance of Regularization for Worst-Case Generalization. ICLR 2020 (Algorithm 1). Here:

- A step updates the weights of all domains, since a batch holds cases of each; the paper draws one group a step.
- The risk that moves a weight is the mean over the two structures, so that disc and cup have the same weights; over
  one of them, where no case of the domain has the other annotated.
- The paper's adjustment for the size of a group is left out: a batch has as many cases of every domain.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fundus_seg.training.method import Method, domain_risks, domain_shares
from fundus_seg.training.task import Loss


class GroupDRO(Method):
    """Minimises the weighted risks of the domains; the weights follow an exponentiated gradient.

    Args:
        eta: step size of the weights, 0.01 in the paper; with 0 they stay equal, and training is plain to the bit.
    """

    def __init__(self, eta: float = 0.01) -> None:
        self.eta = eta
        self.total = torch.zeros(())  # sums over the steps so far of each domain's risk, (D,) from the first step on

    def loss(self, loss_of: Loss, logits: Tensor, masks: Tensor, domains: Tensor, step: int) -> Tensor:
        """sum_d q_d R_d, after q_d <- q_d exp(eta R_d) / sum_d q_d exp(eta R_d), with the risk R_d (2,) of domain d.

        q starts at 1 / D, so it is the softmax of eta times the sums of all risks so far. What is computed is the loss
        of the whole batch plus sum_d (q_d - s_d) R_d, which is the same for a loss that is a mean over cases. s_d is
        the domain's share of the cases that have the structure annotated, 1 / D of whole batches; domains without
        such cases have no part in the sum, nor in the softmax.
        """
        risks = domain_risks(loss_of, logits, masks, domains)
        shares = domain_shares(masks, domains)  # 1 / D where all cases are annotated
        there = shares > 0
        self.total = self.total.to(risks.device) + risks.detach().double().sum(dim=1) / there.sum(dim=1)
        tilt = torch.zeros_like(shares)
        for structure, have in enumerate(there.unbind(dim=1)):
            tilt[have, structure] = (self.eta * self.total[have]).softmax(dim=0) - shares[have, structure]
        return loss_of(logits, masks) + (tilt * risks).sum(dim=0).to(risks.dtype)

    def state(self) -> dict[str, Tensor]:
        """The sums of the risks."""
        return {"total": self.total}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the sums of the risks."""
        self.total = state["total"]
