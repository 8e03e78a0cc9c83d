"""Norms of single images: instance norm for maps of any size, and mask-norm, which treats two regions apart.

Letters: N batch, C channels, h w map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.norm import BatchNorm2d
from segatlas.ops.capture import larger

BaseNorm = Literal["instance", "batch", "layer"]
"""Norms without parameters: over each channel of an image, of a batch, over all channels of an image."""
BlockNorm = Literal["batch", "instance", "mask"]
"""Norms of residual blocks."""

EPS = 1e-5


class InstanceNorm2d(nn.Module):
    """Instance norm without parameters, for training and prediction alike; a map of one pixel becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        return torch.instance_norm(x, None, None, None, None, True, 0.0, EPS, False)


class LayerNorm2d(nn.Module):
    """Norm over all channels and pixels of an image, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        return F.group_norm(x, 1, eps=EPS)


class MaskNorm(nn.Module):
    """Instance norm of two regions of a map, each by itself: what a mask marks, and the rest.

    For each region the other one is filled with this one's mean, the whole is normalised, and the result is scaled by
    the root of the fraction of pixels that the region has: so its own values have variance 1. Paper: Choi et al. 2021,
    "VITON-HD", https://arxiv.org/abs/2103.16874, whose norm it is without the modulation. No gradient goes to the mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = InstanceNorm2d()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (N, C, h, w) to the same shape; mask is (N, 1, h', w'), 0 or 1, resized by the nearest value."""
        mask = F.interpolate(mask.detach().to(x.dtype), size=x.shape[-2:], mode="nearest")
        return self._region(x, mask) + self._region(x, 1 - mask)

    def _region(self, x: Tensor, inside: Tensor) -> Tensor:
        area = inside.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (x * inside).sum((2, 3), keepdim=True) / area
        fraction = area / larger(x.shape[-2] * x.shape[-1], 1)
        normalised: Tensor = self.norm(x * inside + (1 - inside) * mean)
        return normalised * inside * fraction.sqrt()


def base_norm(kind: BaseNorm, channels: int) -> nn.Module:
    """Return a norm without parameters; "batch" keeps running statistics."""
    made: dict[str, Callable[[], nn.Module]] = {
        "instance": InstanceNorm2d,
        "batch": lambda: BatchNorm2d(channels, affine=False),
        "layer": LayerNorm2d,
    }
    return made[kind]()


def block_norm(kind: BlockNorm, channels: int) -> nn.Module:
    """Return a norm of a residual block: "batch" has parameters, "mask" takes a mask at every call."""
    made: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: BatchNorm2d(channels),
        "instance": InstanceNorm2d,
        "mask": MaskNorm,
    }
    return made[kind]()
