"""Means of a network's weights over training: a network beside the one that is trained, which they do not change.

- ema: the exponential mean of all steps. B. T. Polyak, A. B. Juditsky: Acceleration of Stochastic Approximation by
  Averaging. SIAM Journal on Control and Optimization 1992; of networks, A. Tarvainen, H. Valpola: Mean teachers are
  better role models. NeurIPS 2017.
- swa: P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson: Averaging Weights Leads to Wider Optima and
  Better Generalization. UAI 2018.
- swad: J. Cha, S. Chun, K. Lee, H.-C. Cho, S. Park, Y. Lee, S. Park: SWAD: Domain Generalization by Seeking Flat
  Minima. NeurIPS 2021.

The running statistics of batch norms do not fit weights that no step has had. Those of a mean are computed anew before
it is used, from some batches, as swa's paper does. Means of running statistics lag behind: with them, an exponential
mean of 60 steps of MobileNetV2 from scratch had a disc Dice of 42.5 % on the phantom's unseen domain.

The means move by `torch.optim.swa_utils`. Its `AveragedModel` keeps its count in a tensor, for which every step would
wait on a GPU, and its `update_bn` also empties batch norms that are frozen.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fundus_seg.builtins import Averaging
from fundus_seg.config import TrainConfig
from fundus_seg.runs.epochs import row_score


class Average(ABC):
    """A mean of a network's weights, which grows while the network is trained."""

    def __init__(self, network: nn.Module) -> None:
        self.mean = _Mean(network)

    @abstractmethod
    def after_step(self, network: nn.Module) -> None:
        """Called with the network that is trained, after each optimiser step."""

    @abstractmethod
    def after_epoch(self, network: nn.Module, rows: Sequence[Mapping[str, Any]]) -> nn.Module | None:
        """The mean, if after this epoch there is one to be scored and kept, once its norms are renewed (`renew_norms`).

        Args:
            network: the network that is trained.
            rows: of metrics.csv, those of this epoch and of all before it.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a run needs after an epoch to go on to the same bits."""
        return self.mean.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.mean.load_state_dict(state)


class ExponentialMean(Average):
    """The mean moves after each step by 1 - d towards the network: m <- d m + (1 - d) w, d = min(`ema_decay`, warm-up).

    The warm-up, (1 + n) / (10 + n) in step n, is TensorFlow's: a short run averages about its last tenth, where the
    mean teacher's, 1 - 1 / (n + 1), weighs all steps alike, the first ones too. After each epoch the mean is scored,
    and the best is kept.
    """

    def __init__(self, network: nn.Module, train: TrainConfig) -> None:
        super().__init__(network)
        self.decay = train.ema_decay

    def after_step(self, network: nn.Module) -> None:
        """Move the mean."""
        n = self.mean.count
        self.mean.add(network, share=1 - min(self.decay, (1 + n) / (10 + n)))

    def after_epoch(self, network: nn.Module, rows: Sequence[Mapping[str, Any]]) -> nn.Module | None:
        """The mean after this epoch."""
        return self.mean.network


class EpochMean(Average):
    """SWA: the mean of the weights at the end of each epoch e, counted from 1, with e > `swa_start` N, of a run of N.

    The paper trains on with a constant or cyclical learning rate; here the schedule of the run goes on. There is one
    mean, after the last epoch.
    """

    def __init__(self, network: nn.Module, train: TrainConfig) -> None:
        super().__init__(network)
        self.start, self.epochs = train.swa_start * train.epochs, train.epochs

    def after_step(self, network: nn.Module) -> None:
        """Do nothing: the steps within an epoch do not count."""

    def after_epoch(self, network: nn.Module, rows: Sequence[Mapping[str, Any]]) -> nn.Module | None:
        """The mean of the run, after its last epoch."""
        if len(rows) > self.start:
            self.mean.add(network)
        return self.mean.network if len(rows) == self.epochs else None


class ValleyMean(Average):
    """SWAD: the mean of the weights after each step in a window that the validation Dice opens and closes.

    `valley` is the paper's rule. It has a loss and an evaluation at each iteration; here the loss is 1 - the score that
    selects, since the score is a Dice, and it is known once an epoch, which counts as a whole, as in the authors' code
    (khanrc/swad). There is one mean, after the last epoch.
    """

    def __init__(self, network: nn.Module, train: TrainConfig) -> None:
        super().__init__(network)
        self.rule = (train.swad_n_s, train.swad_n_e, train.swad_r)
        self.epochs = train.epochs
        self.epoch = _Mean(network)  # of the steps of the epoch at hand
        self.undecided: dict[int, nn.Module] = {}  # means of epochs that may come into the window, by number

    def after_step(self, network: nn.Module) -> None:
        """Add a step to the epoch's mean."""
        self.epoch.add(network)

    def after_epoch(self, network: nn.Module, rows: Sequence[Mapping[str, Any]]) -> nn.Module | None:
        """The mean over the window, after the last epoch."""
        window, finished = valley([1 - row_score(row) for row in rows], *self.rule), len(rows) == self.epochs
        self.undecided[len(rows) - 1] = copy.deepcopy(self.epoch.network)
        self.epoch.count = 0
        for number in sorted(self.undecided):
            if number in (window.now if finished else window.sure):
                self.mean.add(self.undecided.pop(number))
            elif number not in window.possible:
                del self.undecided[number]
        return self.mean.network if finished else None

    def state_dict(self) -> dict[str, Any]:
        """The mean of what is in the window whatever comes, and what may still come into it."""
        undecided = {number: network.state_dict() for number, network in self.undecided.items()}
        return {**super().state_dict(), "undecided": undecided}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take both up."""
        super().load_state_dict(state)
        for number, weights in state["undecided"].items():
            self.undecided[number] = copy.deepcopy(self.epoch.network)
            self.undecided[number].load_state_dict(weights)


AVERAGES: dict[Averaging, Callable[[nn.Module, TrainConfig], Average]] = {
    "ema": ExponentialMean,
    "swa": EpochMean,
    "swad": ValleyMean,
}
"""What `train.average` takes beside none."""


@dataclass(frozen=True)
class Window:
    """Epochs, counted from 0, whose steps count in a mean.

    Attributes:
        possible: those that count or may still do so, depending on the epochs to come.
        sure: those that count whatever comes.
        now: those that count if no epoch comes any more.
    """

    possible: range
    sure: range
    now: range


def valley(losses: Sequence[float], n_s: int, n_e: int, r: float) -> Window:
    """The window of SWAD (Algorithm 1), as far as it is known by the validation losses E of the epochs so far.

        t_s: the first i whose E_i is less than E_(i + 1) ... E_(i + n_s - 1), once these are known; then
        l = r mean(E_i ... E_(i + n_s - 1))
        t_e: i - n_e for the first later i where l < min(E_(i - n_e + 1) ... E_i); if there is none, the last epoch

    The paper lets E_i equal the others. But a Dice is 0 in several epochs, if nothing is segmented at first, and the
    window must not begin there. As long as there is no t_s, the last epoch counts alone, as in the authors' code; in
    the paper all would.

    Args:
        losses: of one epoch or more, 0 or above.
        n_s: as above.
        n_e: as above.
        r: as above, 1 or more.
    """
    here, start = len(losses), 0
    tolerated: float | None = None
    for i, loss in enumerate(losses):
        if tolerated is None:
            if loss <= losses[start]:
                start = i  # nor can an epoch between the two be the first: this loss stands in its way too
            if i - start + 1 == n_s:
                tolerated = max(losses[start], r * fmean(losses[start : i + 1]))  # max: of rounding alone
        elif i + 1 >= n_e and tolerated < min(losses[i + 1 - n_e : i + 1]):
            whole = range(start, i - n_e + 1)
            return Window(possible=whole, sure=whole, now=whole)
    if tolerated is None:
        return Window(possible=range(start, here), sure=range(0), now=range(here - 1, here))
    good = max(i for i in range(start, here) if losses[i] <= tolerated)
    return Window(possible=range(start, here), sure=range(start, good + 1), now=range(start, here))


@torch.no_grad()
def renew_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of batch norms by the means over some batches.

    A running mean of training lags behind weights that still move fast (Y. Wu, J. Johnson: Rethinking "Batch" in
    BatchNorm, 2021, arXiv 2105.07576, section 3: precise batch norm). All but the norms is in evaluation mode, as it is
    when the network predicts. Norms that stay in evaluation mode in training, as those of a frozen encoder do, keep
    their statistics.

    Args:
        network: the network; it is left in evaluation mode.
        batches: inputs of the network, (B, 3, H, W) each.
    """
    network.train()
    norms = [each for each in network.modules() if isinstance(each, _BatchNorm) and each.training]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    for images in batches:
        network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _Mean:
    """A mean of networks' weights and running statistics: a copy of the first network, made anew by what is added.

    Names pair the tensors, so that a network may have further ones. Whole numbers, such as a count of batches, are
    those of the network that was added last.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.count = 0

    @torch.no_grad()
    def add(self, network: nn.Module, share: float | None = None) -> None:
        """Move the mean m by `share` (w - m) towards the weights w of a network; None: by 1 / the number of them."""
        self.count += 1
        self.network.train()  # drops what was computed from the weights
        own, new = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in own.items() if value.is_floating_point()]
        move = get_ema_multi_avg_fn(1 - (1 / self.count if share is None else share))
        move([own[name] for name in floats], [new[name] for name in floats], None)
        for name in own.keys() - floats:
            own[name].copy_(new[name])

    def state_dict(self) -> dict[str, Any]:
        """The mean and the number of networks in it."""
        return {"mean": self.network.state_dict(), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.network.load_state_dict(state["mean"])
        self.count = state["count"]
