"""The way of BiSeNet's context from an encoder's deepest map up to stride 8, with attention at each step.

Paper: Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation",
https://arxiv.org/abs/1808.00897, section 3.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.norm import BatchNorm2d


class AttentionRefinement(nn.Module):
    """A 3x3 convolution whose channels are weighted by what the whole image shows."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels)
        self.gate = nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False)
        self.gate_bn = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        x = self.conv(x)
        return x * self.gate_bn(self.gate(F.adaptive_avg_pool2d(x, 1))).sigmoid()


class ContextPath(nn.Module):
    """From the deepest map up to stride 8, attention at each step."""

    def __init__(self, channels16: int, channels32: int, width: int):
        super().__init__()
        self.pooled = ConvBNReLU(channels32, width, 1)
        self.refine32 = AttentionRefinement(channels32, width)
        self.refine16 = AttentionRefinement(channels16, width)
        self.conv32 = ConvBNReLU(width, width)
        self.conv16 = ConvBNReLU(width, width)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map the maps at strides 8, 16, 32 to context (N, width, ...) at strides 16 and 8."""
        x8, x16, x32 = maps
        x = self.refine32(x32) + self.pooled(F.adaptive_avg_pool2d(x32, 1))  # (N, width, H/32, W/32)
        at16 = self.conv32(F.interpolate(x, size=x16.shape[-2:], mode="nearest"))
        x = self.refine16(x16) + at16
        at8 = self.conv16(F.interpolate(x, size=x8.shape[-2:], mode="nearest"))
        return at16, at8
