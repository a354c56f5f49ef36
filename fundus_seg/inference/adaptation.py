"""Batch norms that adapt to all photographs of an unseen domain before the first one is predicted: transductive.

Z. Nado, S. Padhy, D. Sculley, A. D'Amour, B. Lakshminarayanan, J. Snoek: Evaluating Prediction-Time Batch Normalization
for Robustness under Covariate Shift. 2020 (arXiv 2006.10963). S. Schneider, E. Rusak, L. Eck, O. Bringmann, W. Brendel,
M. Bethge: Improving robustness against common corruptions by covariate shift adaptation. NeurIPS 2020: the source's
statistics count as N photographs beside the n of the domain,

    m = (N m_source + n m_domain) / (N + n),  and likewise the variance.

Both papers take the statistics of one batch of the test data. Here they are those of all photographs of the domain:
the mean over batches of the batch's statistics, each weighing as many photographs as it has. Within a batch, every norm
sees what the norms before it have made of that batch by its own statistics. The variance between batches is left out.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fundus_seg.errors import DataError
from fundus_seg.inference.ensemble import Ensemble
from fundus_seg.inference.predict import Predictor, Segmenter
from fundus_seg.models import scale_photographs
from fundus_seg.ops import BakedTVConv2d

_BATCH = 16
"""Photographs in a batch at most, as many as the paper's training takes of a domain."""


def adapted(predictor: Segmenter, images: NDArray[np.uint8]) -> Segmenter:
    """The predictor with batch norms that have adapted as its protocol says; itself where they do not adapt.

    Args:
        predictor: one network, or an ensemble, of which each network adapts by itself. They are not changed.
        images: all photographs of one domain at the training size, (n, S, S, 3), in the order of their names. They
            decide the batches, so the order counts, whatever batches are predicted later.

    Raises:
        DataError: there is one photograph alone, of which a batch norm can take no variance.
        ValueError: the network is baked: its norms are a part of its kernels.
    """
    count = predictor.scoring.adapt_batch_norms
    if count is None:
        return predictor
    if len(images) < 2:
        raise DataError("one photograph alone: batch norms adapt to two or more (scoring.adapt_batch_norms)")
    if isinstance(predictor, Ensemble):
        whole = copy.copy(predictor)
        whole.members = tuple(_adapted_member(member, images, count) for member in predictor.members)
        return whole
    return _adapted_member(cast(Predictor, predictor), images, count)


def _adapted_member(predictor: Predictor, images: NDArray[np.uint8], count: int) -> Predictor:
    own = copy.copy(predictor)
    own.network = copy.deepcopy(predictor.network)
    _adapt(own, images, count)
    return own


@torch.no_grad()
def _adapt(predictor: Predictor, images: NDArray[np.uint8], count: int) -> None:
    if any(isinstance(module, BakedTVConv2d) for module in predictor.network.modules()):
        raise ValueError("a baked network cannot adapt: give the network as it was trained.")
    norms = [
        module
        for module in predictor.network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    for norm in norms:
        norm.train()
    for batch in np.array_split(images, math.ceil(len(images) / _BATCH)):  # of equal size but for one
        count += len(batch)
        for norm in norms:
            norm.momentum = len(batch) / count
        seen = torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).to(predictor.device)
        predictor.network(scale_photographs(seen))
    predictor.network.eval()
