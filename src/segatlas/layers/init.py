"""Random starting weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def init_weights(root: nn.Module) -> None:
    """Set starting weights of all layers in `root`.

    Convolutions: normal with variance 2 / fan-out, counted per group (He et al. 2015); fully connected layers:
    truncated normal, 0.02 (Dosovitskiy et al. 2021); norms: weight 1; every bias 0.
    """
    for module in root.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            if module.weight is None:  # a norm without parameters
                continue
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def start_bilinear(weight: Tensor) -> None:
    """Fill the weight (K, K, s, s) of a transposed convolution so that it interpolates each channel bilinearly.

    For an even s = 2f with stride f and padding f / 2, as Long et al. 2015 start theirs; odd s likewise.
    """
    if weight.is_meta:  # a network of shapes alone
        return
    side = weight.shape[-1]
    factor = (side + 1) // 2
    center = factor - 1 if side % 2 else factor - 0.5
    rise = 1 - (torch.arange(side, dtype=weight.dtype, device=weight.device) - center).abs() / factor
    weight.zero_()
    for k in range(min(weight.shape[:2])):
        weight[k, k] = rise[:, None] * rise
