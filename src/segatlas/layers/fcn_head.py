"""The small head of fully convolutional networks, used as an auxiliary head while training."""

from __future__ import annotations

from torch import Tensor, nn

from segatlas.layers.conv import ConvBNReLU


class FCNHead(nn.Module):
    """3x3 convolution, dropout, 1x1 classifier (Long et al. 2015; Zhao et al. 2017).

    channels: width between the two; None = a quarter of `in_channels`.
    dilation: of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int | None = None,
        dilation: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        middle = channels or max(in_channels // 4, 1)
        self.conv = ConvBNReLU(in_channels, middle, dilation=dilation)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(middle, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to logits (N, num_classes, h, w)."""
        out: Tensor = self.classifier(self.dropout(self.conv(x)))
        return out
