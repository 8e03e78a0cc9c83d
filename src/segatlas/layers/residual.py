"""Residual blocks whose norm can be chosen, and that may halve or double a map."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.region_norm import BlockNorm, block_norm

Scale = Literal["down", "same", "up"]


class ScaledResidual(nn.Module):
    """A convolution that scales, then two 3x3 convolutions beside it: ReLU(r + block(r)), r = scale(x).

    Paper: Wu et al. 2024, "KF-VTON", https://doi.org/10.1145/3673903, its blocks of encoder and decoder. With batch
    norm r is normed too, which the paper's are not: else it outgrows what the block adds to it, the more the deeper.

    Args:
        in_channels: of x.
        out_channels: of the result.
        scale: "down" = 3x3 of stride 2, "same" = 1x1, "up" = 1x1, doubled bilinearly. (A 1x1 convolution before the
            doubling gives the numbers of one behind it, at a quarter of the price.)
        norm: "instance" without parameters and convolutions with bias, as published; or "batch", which r has as well.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: Scale, norm: Literal["batch", "instance"] = "batch"):
        super().__init__()
        bias = norm != "batch"
        self.doubles = scale == "up"
        if scale == "down":
            self.scale = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=bias)
        else:
            self.scale = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.scale_norm = nn.Identity() if bias else BatchNorm2d(out_channels)
        self.block = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias),
            block_norm(norm, out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias),
            block_norm(norm, out_channels),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h', w'), h' = h/2, h or 2h."""
        scaled = self.scale_norm(self.scale(x))
        if self.doubles:
            scaled = F.interpolate(scaled, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.relu(scaled + self.block(scaled))
        return out


class NormResidual(nn.Module):
    """x + two times (norm, ReLU, 3x3 convolution).

    Args:
        channels: of x and of the result.
        norm: "batch", "instance" without parameters, or "mask", see `MaskNorm`, which takes a mask at every call.
    """

    def __init__(self, channels: int, norm: BlockNorm = "batch"):
        super().__init__()
        self.takes_mask = norm == "mask"
        self.norm_1, self.norm_2 = (block_norm(norm, channels) for _ in range(2))
        self.conv_1, self.conv_2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (N, C, h, w) to the same shape; mask is (N, 1, h', w'), 0 or 1.

        Raises:
            UsageError: mask-norm without a mask, or another norm with one.
        """
        if (mask is None) == self.takes_mask:
            found = "no mask" if mask is None else "a mask"
            raise UsageError(f"a residual block got {found}; mask-norm takes one, batch and instance norm none")
        given = () if mask is None else (mask,)
        out = self.conv_1(F.relu(self.norm_1(x, *given)))
        out = self.conv_2(F.relu(self.norm_2(out, *given)))
        result: Tensor = x + out
        return result
