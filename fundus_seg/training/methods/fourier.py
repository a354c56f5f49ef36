"""Fourier amplitude mix: a photograph's amplitude spectrum is mixed with that of a photograph of another domain.

Q. Xu, R. Zhang, Y. Zhang, Y. Wang, Q. Tian: A Fourier-based Framework for Domain Generalization. CVPR 2021. This is
its augmentation without its teacher network. The related FDA (Y. Yang, S. Soatto: FDA: Fourier Domain Adaptation for
Semantic Segmentation. CVPR 2020) swaps low frequencies only. The phase, which holds the shapes, is kept, and so are the
masks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fundus_seg.training.method import Method, draw_partners


class FourierMix(Method):
    """Mixes the amplitudes of photographs in training.

    Args:
        p: probability that a case is mixed. The paper trains on each photograph twice, original and mixed.
        eta: the share of the other photograph's amplitude is drawn from U(0, eta).
    """

    def __init__(self, p: float = 0.5, eta: float = 1.0) -> None:
        self.p = p
        self.eta = eta

    def batch(self, images: Tensor, masks: Tensor, domains: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mixes photographs with those of another domain and returns them as floats from 0 to 255."""
        share = self.eta * torch.rand(len(images), 1, 1, 1) * (torch.rand(len(images), 1, 1, 1) < self.p)
        share = share.to(images.device, non_blocking=True)
        return mix_amplitudes(images.float(), draw_partners(domains), share), masks


def mix_amplitudes(images: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Photographs x (B, C, H, W) from 0 to 255 with mixed amplitude spectra, clipped to the same range.

        F^-1[((1 - l) |F(x)| + l |F(x')|) exp(i arg F(x))]

    F is the Fourier transform of each channel, x' are the partners, (B,) indices into the batch, l = `share`
    (B, 1, 1, 1).
    """
    spectra = torch.fft.rfft2(images)
    amplitudes = spectra.abs()
    mixed = torch.polar(torch.lerp(amplitudes, amplitudes[partners], share), spectra.angle())
    return torch.fft.irfft2(mixed, s=images.shape[-2:]).clamp(0, 255)
