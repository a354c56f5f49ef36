"""MLPMixer2d: layers that mix positions and layers that mix channels, in turn. It stands for the whole ASPP.

I. Tolstikhin et al., *MLP-Mixer: An all-MLP Architecture for Vision*, NeurIPS 2021.

    U = X + (W_2 GELU(W_1 LayerNorm(X)ᵀ))ᵀ            (Eq. 1)  along the S positions, the same for every channel
    Y = U + W_4 GELU(W_3 LayerNorm(U))                          along the C channels, the same at every position

The paper's sizes, as shares of C: hidden layers of C / 2 values for positions and of 4 C for channels; 8 layers, as in
its smallest network, Mixer-S. Where this departs from the paper:

- Positions are those of the map that the ASPP sees, embedded by a 1x1 convolution, in place of patches of an image.
- The classifier behind the last layer norm is left to the network.
- W_1 has the size of one map. A map of another size is resampled to it before the first layer, bilinearly, and the
  result is resampled back.

It is out of the family: it replaces no convolution, and neither its width nor its cost follow from the block's.
"""

from __future__ import annotations

from torch import Tensor, nn

from fundus_seg.ops.layout import is_channels_last, map_in
from fundus_seg.ops.plain import conv2d
from fundus_seg.ops.translation_variant import Size
from fundus_seg.ops.upsampling import upsample_bilinear


class MLPMixer2d(nn.Module):
    """MLP-Mixer (NeurIPS 2021, Eq. 1) over the positions of a map.

    x: (B, in_channels, H, W) -> (B, channels, H, W), of any size.

    Args:
        in_channels: channels of x.
        channels: C.
        size: (h, w) of the map that the layers are made for; S = h·w.
        layers: number of layers.
    """

    def __init__(self, in_channels: int, channels: int, size: Size, *, layers: int = 8) -> None:
        super().__init__()
        self.size = size
        self.embed = conv2d(in_channels, channels, bias=True)
        self.layers = nn.ModuleList(_MixerLayer(size[0] * size[1], channels) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, in_channels, H, W) to (B, channels, H, W)."""
        size = x.shape[2:]
        maps = self.embed(x if size == self.size else upsample_bilinear(x, self.size))
        tokens = maps.flatten(2).transpose(1, 2)  # (B, S, C)
        for layer in self.layers:
            tokens = layer(tokens)
        out = self.norm(tokens).transpose(1, 2).unflatten(2, self.size)
        return map_in(out if size == self.size else upsample_bilinear(out, size), is_channels_last(x))


class _MixerLayer(nn.Module):
    """(B, S, C) -> (B, S, C): Eq. 1."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__()
        self.norm_positions, self.norm_channels = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix_positions = _perceptron(positions, max(1, channels // 2))
        self.mix_channels = _perceptron(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, S, C) to (B, S, C)."""
        x = x + self.mix_positions(self.norm_positions(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.mix_channels(self.norm_channels(x))
        return mixed


def _perceptron(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
