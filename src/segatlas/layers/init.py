"""Random starting weights."""

from __future__ import annotations

import math

from torch import nn


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
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
