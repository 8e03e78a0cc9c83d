"""Convolutions in groups that dilate, of which torch computes a wrong gradient in bf16 on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DilatedGroups(nn.Conv2d):
    """An `nn.Conv2d` of the same parameters that trains in float32, whatever the autocast around it.

    Under bf16 the gradient of its weight is that of other memory (torch 2.15, channels-last maps: off by its own size,
    by 1e34, not finite, or the process ends), and the step that follows ruins the network without a word. In float32
    it is right, and takes no longer. Its forward pass is right in both; without gradients it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h', w'), in the type that the autocast gives."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            out = super().forward(x.float())
        return out.to(torch.get_autocast_dtype("cpu"))


def hold_dilated_groups(root: nn.Module) -> None:
    """Let such convolutions of a network train in float32; parameters stay where they are."""
    for module in root.modules():
        if type(module) is nn.Conv2d and module.groups > 1 and max(module.dilation) > 1:
            module.__class__ = DilatedGroups
