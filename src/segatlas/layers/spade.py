"""SPADE: a map's norm is undone by another map, pixel by pixel; its residual block, and the context-aware form.

Papers: Park et al. 2019, "Semantic Image Synthesis with Spatially-Adaptive Normalization",
https://arxiv.org/abs/1903.07291; the context-aware form: Wu et al. 2024, "KF-VTON",
https://doi.org/10.1145/3673903; SimAM: Yang et al. 2021, https://proceedings.mlr.press/v139/yang21o.html.

Idea: a norm takes away what a map says of its level. Here scale and shift that follow it are two maps, made from a
second input, such as a mask, so what lies where reaches each layer of a decoder.

Letters: N batch, C channels, M channels of the modulating map, h w map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.region_norm import BaseNorm, base_norm
from segatlas.ops.capture import larger, may_differ

HIDDEN = 128
SLOPE = 0.2
SIMAM_EPS = 1e-4
FIRST_SPREAD = 0.02
"""Deviation of the first weights of gamma and beta."""


class SPADE(nn.Module):
    """norm(x) * (1 + gamma) + beta, gamma and beta convolved from a second map.

    Args:
        channels: of x, C.
        map_channels: of the second map, M.
        hidden: channels between the second map and both.
        base: norm of x.
    """

    def __init__(self, channels: int, map_channels: int, *, hidden: int = HIDDEN, base: BaseNorm = "instance"):
        super().__init__()
        self.norm = base_norm(base, channels)
        self.shared = _conv(map_channels, hidden)
        self.gamma = _conv(hidden, channels)
        self.beta = _conv(hidden, channels)

    def start_small(self) -> None:
        """Let gamma and beta begin near 0, as published: the norm alone, which the second map then comes to change."""
        for conv in (self.gamma, self.beta):
            nn.init.normal_(conv.weight, std=FIRST_SPREAD)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map x (N, C, h, w) by (N, M, h', w'), which is resized by the nearest value, to (N, C, h, w)."""
        shared = F.relu(self.shared(resized_as(modulation, x)))
        out: Tensor = self.norm(x) * (1 + self.gamma(shared)) + self.beta(shared)
        return out


class SPADEBlock(nn.Module):
    """Residual block: two times SPADE, leaky ReLU, 3x3 convolution; the shortcut too where channels change.

    Args:
        in_channels: of x.
        out_channels: of the result.
        map_channels: of the second map, M.
        hidden: as of `SPADE`.
        base: as of `SPADE`.
        spectral: spectral norm on the block's own convolutions (Miyato et al. 2018, https://arxiv.org/abs/1802.05957).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        map_channels: int,
        *,
        hidden: int = HIDDEN,
        base: BaseNorm = "instance",
        spectral: bool = False,
    ):
        super().__init__()
        middle = min(in_channels, out_channels)

        def spade(channels: int) -> SPADE:
            return SPADE(channels, map_channels, hidden=hidden, base=base)

        self.norm_1, self.norm_2 = spade(in_channels), spade(middle)
        self.conv_1 = with_spectral_norm(_conv(in_channels, middle), spectral)
        self.conv_2 = with_spectral_norm(_conv(middle, out_channels), spectral)
        changes = in_channels != out_channels
        self.norm_shortcut = spade(in_channels) if changes else None
        shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False) if changes else None
        self.conv_shortcut = None if shortcut is None else with_spectral_norm(shortcut, spectral)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) by (N, M, h', w') to (N, out_channels, h, w)."""
        modulation = resized_as(modulation, x)
        out = self.conv_1(F.leaky_relu(self.norm_1(x, modulation), SLOPE))
        out = self.conv_2(F.leaky_relu(self.norm_2(out, modulation), SLOPE))
        if self.norm_shortcut is not None and self.conv_shortcut is not None:
            x = self.conv_shortcut(self.norm_shortcut(x, modulation))
        result: Tensor = x + out
        return result


class ContextSPADE(nn.Module):
    """SPADE whose gamma and beta come from the map itself, each modulated by the second map; then leaky ReLU.

    Args:
        in_channels: of x.
        channels: of x behind its own 3x3 convolution, and of the result, C.
        map_channels: of the second map, M.
        hidden: as of `SPADE`.
        base: as of `SPADE`.
    """

    def __init__(
        self, in_channels: int, channels: int, map_channels: int, *, hidden: int = HIDDEN, base: BaseNorm = "instance"
    ):
        super().__init__()
        self.conv = _conv(in_channels, channels)
        self.norm = base_norm(base, channels)
        self.context = _conv(channels, hidden)
        self.gamma, self.beta = _conv(hidden, channels), _conv(hidden, channels)
        self.shared = _conv(map_channels, hidden)
        self.gamma_scale, self.gamma_shift = _conv(hidden, channels), _conv(hidden, channels)
        self.beta_scale, self.beta_shift = _conv(hidden, channels), _conv(hidden, channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) by (N, M, h', w') to (N, C, h, w)."""
        x = self.conv(x)
        shared = F.relu(self.shared(resized_as(modulation, x)))
        context = F.relu(self.context(x))
        gamma = self.gamma(context) * (1 + self.gamma_scale(shared)) + self.gamma_shift(shared)
        beta = self.beta(context) * (1 + self.beta_scale(shared)) + self.beta_shift(shared)
        return F.leaky_relu(self.norm(x) * (1 + gamma) + beta, SLOPE)


class ContextSPADEBlock(nn.Module):
    """Residual block of `ContextSPADE`, with SimAM on its result. Arguments are those of `SPADEBlock`.

    As published, another leaky ReLU stands before each convolution. The published block can only be made where
    out_channels is no larger than in_channels; for others its first half keeps the smaller of both here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        map_channels: int,
        *,
        hidden: int = HIDDEN,
        base: BaseNorm = "instance",
        spectral: bool = False,
    ):
        super().__init__()
        middle = min(in_channels, out_channels)

        def spade(before: int, after: int) -> ContextSPADE:
            return ContextSPADE(before, after, map_channels, hidden=hidden, base=base)

        self.norm_1, self.norm_2 = spade(in_channels, middle), spade(middle, middle)
        self.conv_1 = with_spectral_norm(_conv(middle, middle), spectral)
        self.conv_2 = with_spectral_norm(_conv(middle, out_channels), spectral)
        changes = in_channels != out_channels
        self.norm_shortcut = spade(in_channels, out_channels) if changes else None
        shortcut = nn.Conv2d(out_channels, out_channels, 1, bias=False) if changes else None
        self.conv_shortcut = None if shortcut is None else with_spectral_norm(shortcut, spectral)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) by (N, M, h', w') to (N, out_channels, h, w)."""
        modulation = resized_as(modulation, x)
        out = self.conv_1(F.leaky_relu(self.norm_1(x, modulation), SLOPE))
        out = self.conv_2(F.leaky_relu(self.norm_2(out, modulation), SLOPE))
        if self.norm_shortcut is not None and self.conv_shortcut is not None:
            x = self.conv_shortcut(self.norm_shortcut(x, modulation))
        return simam(x + out)


def simam(x: Tensor) -> Tensor:
    """Weight each pixel of a map (N, C, h, w) by how far it lies from its channel's mean; SimAM has no parameters."""
    squared = (x - x.mean((2, 3), keepdim=True)).square()
    variance = squared.sum((2, 3), keepdim=True) / larger(x.shape[-2] * x.shape[-1] - 1, 1)
    return x * torch.sigmoid(squared / (4 * (variance + SIMAM_EPS)) + 0.5)


def resized_as(modulation: Tensor, x: Tensor) -> Tensor:
    """Return a map resized by the nearest value to the size of x (N, C, h, w)."""
    size = (x.shape[-2], x.shape[-1])
    if not may_differ(modulation.shape[-2:], size):
        return modulation
    return F.interpolate(modulation, size=size, mode="nearest")


def with_spectral_norm(conv: nn.Conv2d, spectral: bool) -> nn.Module:
    """Return a convolution, under spectral norm where that is asked for."""
    if not spectral:
        return conv
    from torch.nn.utils.parametrizations import spectral_norm

    normed: nn.Module = spectral_norm(conv)
    return normed


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
