"""One convolution over a map and over small maps of the same scene (pooled ones) upsampled beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.before_upsampling import convolve_before_upsampling, taps_as_channels, upsample_taps
from segatlas.layers.conv import ConvBNReLU


class PooledFuse(ConvBNReLU):
    """Upsample the small maps to the large one's size, concatenate all, convolve; batch norm, ReLU.

    The small maps are never upsampled: their part of the convolution is computed before the upsampling, which for
    pyramid pooling saves half of it. Parameters are those of the plain convolution.

    Args:
        in_channels: of the large map.
        pooled_channels: of each small map, in order.
        out_channels: of the result.
        kernel_size: of the convolution.
        align_corners: of the upsampling.
    """

    def __init__(
        self,
        in_channels: int,
        pooled_channels: Sequence[int],
        out_channels: int,
        kernel_size: int = 3,
        *,
        align_corners: bool = False,
    ):
        super().__init__(in_channels + sum(pooled_channels), out_channels, kernel_size)
        self.slices = [in_channels, *pooled_channels]
        self.align_corners = align_corners

    def forward(self, x: Tensor, pooled: Sequence[Tensor] = ()) -> Tensor:
        """Map x (N, in_channels, h, w) and small maps (N, pooled_channels[i], h_i, w_i) to (N, out_channels, h, w)."""
        own, *kernels = self.conv.weight.split(self.slices, dim=1)
        size = (x.shape[-2], x.shape[-1])
        small = convolve_before_upsampling(pooled, kernels, size, align_corners=self.align_corners)
        out = F.conv2d(x, own, padding=own.shape[-1] // 2).add_(small)
        result: Tensor = self.relu(self.bn(out))
        return result

    def inference_form(self) -> FoldedPooledFuse:
        """Return the block with its norm folded in and its kernels laid out, for prediction with these weights."""
        return FoldedPooledFuse(self)


class FoldedPooledFuse(nn.Module):
    """A PooledFuse in eval mode."""

    def __init__(self, block: PooledFuse):
        super().__init__()
        norm, self.kernel_size, self.align_corners = block.bn, block.conv.kernel_size[0], block.align_corners
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        own, *kernels = (block.conv.weight * scale[:, None, None, None]).split(block.slices, dim=1)
        self.conv = convolution(own.contiguous(), norm.bias - norm.running_mean * scale)
        self.pooled = nn.ModuleList(convolution(taps_as_channels(kernel), None) for kernel in kernels)

    def forward(self, x: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """As `PooledFuse`."""
        products = (conv(y) for conv, y in zip(self.pooled, pooled, strict=True))
        size = (x.shape[-2], x.shape[-1])
        small = upsample_taps(products, self.kernel_size, size, align_corners=self.align_corners)
        out: Tensor = self.conv(x)
        return out.add_(small).relu_()


def convolution(kernel: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return the convolution ("same" padding) with this kernel (D, C, k, k) and bias (D)."""
    out_channels, in_channels, size, _ = kernel.shape
    with torch.device("meta"):
        conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias is not None)
    state = {"weight": kernel.detach()} if bias is None else {"weight": kernel.detach(), "bias": bias.detach()}
    conv.load_state_dict(state, assign=True)
    return conv
