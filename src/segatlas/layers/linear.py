"""Fully connected layers and 1x1 convolutions at the speed that the processor has for convolutions.

Two slow paths of torch on processors, with the same numbers as the quick one (measured in docs/architecture.md):
fp32 matrix products go to MKL, which on AMD processors takes twice the time of oneDNN; and at one thread 1x1
convolutions of fewer than 16 images leave oneDNN for im2col and MKL. Neither happens to a convolution that dilates,
and dilation means nothing to a kernel of one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.ops.capture import is_captured

SMALL = 20480
"""Torch keeps inputs of up to this many numbers away from oneDNN; dilation would only make that slower."""

FEW_TOKENS = 64
"""Below this many tokens a plain matrix product is quicker: a convolution first lays its weights out anew."""


class TokenLinear(nn.Linear):
    """`nn.Linear` with the same parameters, run as a 1x1 convolution where that is quicker.

    Tokens with their channels adjacent in memory are a channels-last map, so nothing is copied, forward or backward.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return token_linear(x, self.weight, self.bias)


def token_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map (..., in_features) to (..., out_features) by a matrix (out_features, in_features), as `TokenLinear`."""
    if weight.dtype != torch.float32 or not _is_quicker_by_onednn(x):
        return F.linear(x, weight, bias)
    tokens = x.numel() // max(x.shape[-1], 1)
    if tokens < FEW_TOKENS:
        return F.linear(x, weight, bias)
    as_map = x.reshape(1, 1, tokens, x.shape[-1]).permute(0, 3, 1, 2)  # (1, in_features, 1, tokens)
    out = F.conv2d(as_map, weight[:, :, None, None], bias, dilation=2)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 `nn.Conv2d` with the same parameters that, given a channels-last map, runs by oneDNN at one thread, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h', w')."""
        quick = _is_quicker_by_onednn(x) and x.is_contiguous(memory_format=torch.channels_last)
        dilation = 2 if quick else self.dilation
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, dilation, self.groups)


def _is_quicker_by_onednn(x: Tensor) -> bool:
    return (
        not is_captured()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > SMALL
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )
