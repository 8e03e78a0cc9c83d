"""Separable convolution: each channel is filtered by itself, then a 1x1 convolution mixes the channels.

Paper: Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", https://arxiv.org/abs/1610.02357.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from segatlas.layers.norm import BatchNorm2d
from segatlas.ops.capture import is_captured


class SeparableConvBNReLU(nn.Module):
    """Depthwise convolution, pointwise convolution, batch norm, ReLU; the size stays.

    Args:
        in_channels: of the map.
        out_channels: of the result.
        dilation: of the depthwise convolution.
        depthwise_norm: batch norm and ReLU after the depthwise convolution too.
        kernel_size: of the depthwise convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dilation: int = 1,
        depthwise_norm: bool = True,
        kernel_size: int = 3,
    ):
        super().__init__()
        padding = kernel_size // 2 * dilation
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.depthwise_bn = BatchNorm2d(in_channels) if depthwise_norm else None
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        x = self.depthwise(x)
        if self.depthwise_bn is not None:
            x = self.relu(self.depthwise_bn(x))
        out: Tensor = self.relu(self.bn(self.pointwise(x)))
        return out

    def inference_form(self) -> SeparableConvBNReLU:
        """Return the block with the depthwise convolution as sum of shifts where it dilates."""
        form = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        if form.depthwise.dilation != (1, 1) and form.depthwise.kernel_size == (3, 3):
            form.depthwise.__class__ = ShiftedDepthwise
        return form


class ShiftedDepthwise(nn.Conv2d):
    """A depthwise convolution with stride 1 that keeps the size: on a processor, its kernel's taps one after another.

    For wide kernels over many channels, torch's own takes several times as long, most of all on channels-last maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        if is_captured() or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        if x.is_contiguous():
            return torch.cat([self._shift(x, slice(start, start + 64)) for start in range(0, x.shape[1], 64)], dim=1)
        return self._shift(x, slice(None))

    def _shift(self, x: Tensor, channels: slice) -> Tensor:
        """Return the result for some of the channels; a few of them at a time stay in the processor's cache."""
        x, kernel = x[:, channels], self.weight[channels, 0, :, :, None, None]
        out = x * kernel[:, 1, 1]
        if self.bias is not None:
            out += self.bias[channels, None, None]
        rows, columns = (list(enumerate(spans(self.dilation[i], x.shape[i - 2]))) for i in (0, 1))
        for a, (to_rows, from_rows) in rows:
            for b, (to_columns, from_columns) in columns:
                if (a, b) != (1, 1):
                    out[..., to_rows, to_columns].addcmul_(x[..., from_rows, from_columns], kernel[:, a, b])
        return out


def spans(dilation: int, length: int) -> list[tuple[slice, slice]]:
    """Return for each of a kernel's three taps along a line: which places of the result get which places of the map."""
    far = min(dilation, length)
    near, all_of = slice(0, length - far), slice(0, length)
    return [(slice(far, length), near), (all_of, all_of), (near, slice(far, length))]
