"""1x1 convolutions with a stride on narrow maps, whose gradient torch computes outside its memory on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROW = 16
"""Channels from which on torch's own gradient is right."""


class StridedPointwise(nn.Conv2d):
    """An `nn.Conv2d` of the same parameters that trains on the pixels which its stride meets, cut out beforehand.

    Of 2 to 15 channels torch 2.15 computes the gradient of the weight of such a convolution, given channels-last maps,
    by writing past its memory: the process ends, or goes on with other numbers spoilt. Without gradients it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h', w')."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias)


def hold_strided_pointwise(root: nn.Module) -> None:
    """Let such convolutions of a network train on what their stride meets; parameters stay where they are."""
    for module in root.modules():
        if type(module) is nn.Conv2d and _is_met(module):
            module.__class__ = StridedPointwise


def _is_met(conv: nn.Conv2d) -> bool:
    plain = conv.kernel_size == (1, 1) and conv.padding in ((0, 0), "valid") and conv.groups == 1
    return plain and max(conv.stride) > 1 and conv.in_channels < NARROW
