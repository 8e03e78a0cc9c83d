"""LinkNet: a light decoder that adds the encoder's maps instead of concatenating them.

Paper: Chaurasia and Culurciello 2017, "LinkNet: Exploiting Encoder Representations for Efficient Semantic
Segmentation", https://arxiv.org/abs/1707.03718.

Idea: each step narrows the map to a quarter, doubles it by a transposed convolution, widens it to the encoder's map of
that size, and adds that. Sums keep maps narrow, so the decoder costs little.

Letters: N batch, C image channels, K classes, H W image (padded to the canvas), h w any map, D width of the last step.

How ours differs: the form is that of segmentation-models-pytorch: one step for each doubling of the encoder (five on a
ResNet, the paper has four and another ending), encoders of any kind, a 1x1 classifier.

Any image size: padded right and bottom with zeros to a multiple of the encoder's last stride.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.doubling import doubling_steps
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig, DenseNetwork, PresenceConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class LinkNetConfig(DenseConfig, PresenceConfig):
    """Settings of a LinkNet, besides those of `DenseConfig` and `PresenceConfig`.

    channels: of the last step, which meets no map of the encoder, D.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet34")
    dropout: float = 0.0
    channels: int = 32


class Doubling(nn.Module):
    """A transposed 4x4 convolution that doubles the map, batch norm, ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, kernel_size=4, stride=2, padding=1)
        self.bn = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, channels, 2h, 2w)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class LinkStep(nn.Module):
    """Narrow to a quarter, double, widen; add the encoder's map (if any)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        middle = max(in_channels // 4, 1)
        self.narrow = ConvBNReLU(in_channels, middle, kernel_size=1)
        self.up = Doubling(middle)
        self.widen = ConvBNReLU(middle, out_channels, kernel_size=1)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map x (N, in_channels, h, w) and skip (N, out_channels, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        x = self.widen(self.up(self.narrow(x)))
        return x if skip is None else x + skip


class LinkNet(DenseNetwork):
    """Encoder, one step a doubling, 1x1 classifier: logits at stride 1."""

    def __init__(self, config: LinkNetConfig):
        super().__init__(config)
        self.size_divisibility = max(self.size_divisibility, self.encoder.strides[-1])
        steps = self.encoder.strides[-1].bit_length() - 1
        *skips, _ = doubling_steps(self.encoder.strides, self.encoder.channels, steps, network="LinkNet")
        widths = [self.encoder.channels[-1]]
        for skip in skips:
            widths.append(skip or widths[-1])
        self.decoder = nn.ModuleList(map(LinkStep, widths, [*widths[1:], config.channels]))
        self.add_classifier(config, config.channels, self.decoder)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H, W)."""
        *skips, x = features
        for step in self.decoder.children():
            x = step(x, skips.pop() if skips else None)
        return x


ARCHITECTURE = Architecture(
    name="linknet",
    title="LinkNet",
    paper="https://arxiv.org/abs/1707.03718",
    tasks=("semantic",),
    output=SemanticLogits,
    config=LinkNetConfig,
    build=LinkNet,
    variants={
        "linknet_r18": {"encoder": "resnet18"},
        "linknet_r34": {"encoder": "resnet34"},
        "linknet_r50": {"encoder": "resnet50"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
