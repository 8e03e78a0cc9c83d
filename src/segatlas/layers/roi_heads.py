"""Heads of two-stage networks that look at one box at a time: its class and its better place, and its mask.

Papers: Ren et al. 2015, "Faster R-CNN", https://arxiv.org/abs/1506.01497; He et al. 2017, "Mask R-CNN",
https://arxiv.org/abs/1703.06870.

Letters: R boxes of a batch, D channels, K classes, s cells of a box a side.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU


class BoxHead(nn.Module):
    """Convolutions, fully connected layers with ReLU, then logits of the classes and four deltas for each class.

    Args:
        channels: of the cells, D.
        side: cells a side, s.
        num_classes: K; the last of the K + 1 logits is "no object".
        convs: 3x3 convolutions with batch norm and ReLU before the fully connected layers.
        layers: of these.
        width: of these.
    """

    def __init__(self, channels: int, side: int, num_classes: int, *, convs: int, layers: int, width: int):
        super().__init__()
        self.convs = nn.ModuleList(ConvBNReLU(channels, channels) for _ in range(convs))
        widths = [channels * side**2, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(a, width) for a in widths[:-1])
        self.classifier = nn.Linear(widths[-1], num_classes + 1)
        self.deltas = nn.Linear(widths[-1], 4 * num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.classifier.bias)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map cells (R, D, s, s) to logits (R, K + 1) and deltas (R, 4 K), those of a class behind one another."""
        for conv in self.convs:
            x = conv(x)
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.classifier(x), self.deltas(x)


class MaskHead(nn.Module):
    """3x3 convolutions with ReLU, a doubling, then a map of logits for each class.

    Args:
        channels: of the cells, D.
        width: of the convolutions.
        num_classes: K.
        convs: how many.
        norm: batch norm in place of their biases.
    """

    def __init__(self, channels: int, width: int, num_classes: int, *, convs: int, norm: bool):
        super().__init__()
        widths = [channels, *[width] * convs]
        self.convs = nn.ModuleList(box_convolution(a, width, norm=norm) for a in widths[:-1])
        self.up = nn.ConvTranspose2d(widths[-1], width, kernel_size=2, stride=2)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map cells (R, D, s, s) to logits (R, K, 2 s, 2 s)."""
        for conv in self.convs:
            x = F.relu(conv(x))
        out: Tensor = self.classifier(F.relu(self.up(x)))
        return out


def box_convolution(in_channels: int, channels: int, *, norm: bool) -> nn.Module:
    """Return a 3x3 convolution of cells; with `norm` batch norm and ReLU follow in place of its bias."""
    return ConvBNReLU(in_channels, channels) if norm else nn.Conv2d(in_channels, channels, 3, padding=1)
