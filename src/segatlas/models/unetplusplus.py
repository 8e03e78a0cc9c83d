"""U-Net++: a U-Net whose skip connections are filled with nodes of their own.

Paper: Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
https://arxiv.org/abs/1807.10165.

Idea: the maps that a U-Net's decoder joins at a step are far apart in meaning. So between them stands a row of nodes:
each upsamples the node below it and joins it with all earlier maps of its own row, which brings the two sides nearer.

    row 0   X - o                 X a map of the encoder, the deepest below all rows
    row 1   X - o - o             o a node: upsample what is below left, concatenate its row so far, two convolutions
    row 2   X - o - o - o         the last node of each row is the decoder's

Letters: N batch, C image channels, K classes, H W image (padded to the canvas), h w any map.

How ours differs: the form is that of segmentation-models-pytorch (nearest-neighbour doubling, encoders of any kind, no
deep supervision, a 3x3 classifier). Nodes within a row are as wide as the encoder's map there; `decoder_channels` are
the widths of the last nodes. Rows are computed one after the other, so that two of them are kept and not all.

Any image size: padded right and bottom with zeros to a multiple of the encoder's last stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.doubling import doubling_steps
from segatlas.layers.scse import SCSE
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig, DenseNetwork, PresenceConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusConfig(DenseConfig, PresenceConfig):
    """Settings of a U-Net++, besides those of `DenseConfig` and `PresenceConfig`.

    decoder_channels: channels of the last node of each row, deepest first. Fewer entries than the encoder has doublings
        stop early and leave the logits at a coarser stride.
    attention: "scse" weights what a node of a stride above 1 joins, and the result of each, by channel and by pixel.
    classifier_kernel_size: of the classifier.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet34")
    dropout: float = 0.0
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    attention: Literal["scse"] | None = None
    classifier_kernel_size: int = 3


class NestedNode(nn.Module):
    """Upsample twofold, concatenate the maps of the row (if any), two convolutions.

    Args:
        in_channels: of all that is concatenated.
        out_channels: of the result.
        joined: weight what is concatenated by scSE.
        result: weight the result so.
    """

    def __init__(self, in_channels: int, out_channels: int, *, joined: bool, result: bool):
        super().__init__()
        self.attention1 = SCSE(in_channels) if joined else nn.Identity()
        self.conv1 = ConvBNReLU(in_channels, out_channels)
        self.conv2 = ConvBNReLU(out_channels, out_channels)
        self.attention2 = SCSE(out_channels) if result else nn.Identity()

    def forward(self, x: Tensor, row: list[Tensor]) -> Tensor:
        """Map x (N, _, h, w) and maps (N, _, 2h, 2w), together of in_channels, to (N, out_channels, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.attention1(torch.cat([x, *row], dim=1))
        out: Tensor = self.attention2(self.conv2(self.conv1(x)))
        return out


class UNetPlusPlus(DenseNetwork):
    """Encoder, rows of nodes, 3x3 classifier: logits at stride 1, or coarser where `decoder_channels` is short."""

    def __init__(self, config: UNetPlusPlusConfig):
        super().__init__(config)
        encoder = self.encoder
        self.size_divisibility = max(self.size_divisibility, encoder.strides[-1])
        skips = doubling_steps(encoder.strides, encoder.channels, len(config.decoder_channels), network="U-Net++")
        self.rows = nn.ModuleList()
        below, stride, attention = [encoder.channels[-1]], encoder.strides[-1], config.attention is not None
        for skip, last in zip(skips, config.decoder_channels, strict=True):
            stride //= 2
            inputs = below if skip else below[-1:]
            outputs = [*[skip] * (len(inputs) - 1), last]
            nodes = (
                NestedNode(width + (column + 1) * skip, out, joined=attention and stride > 1, result=attention)
                for column, (width, out) in enumerate(zip(inputs, outputs, strict=True))
            )
            self.rows.append(nn.ModuleList(nodes))
            below = [skip, *outputs] if skip else outputs
        kernel_size = config.classifier_kernel_size
        self.add_classifier(config, config.decoder_channels[-1], self.rows, kernel_size=kernel_size)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, decoder_channels[-1], H/s, W/s)."""
        *skips, deepest = features
        below = [deepest]
        for nodes in self.rows.children():
            row = [skips.pop()] if skips else []  # the newest first, the encoder's map last
            for node, x in zip(nodes.children(), below if row else below[-1:], strict=True):
                row = [node(x, row), *row]
            below = row[::-1]
        return below[-1]


ARCHITECTURE = Architecture(
    name="unetplusplus",
    title="U-Net++",
    paper="https://arxiv.org/abs/1807.10165",
    tasks=("semantic",),
    output=SemanticLogits,
    config=UNetPlusPlusConfig,
    build=UNetPlusPlus,
    variants={
        "unetplusplus_r34": {"encoder": "resnet34"},
        "unetplusplus_r50": {"encoder": "resnet50"},
    },
    tiny={"encoder": "resnet18_w8", "decoder_channels": (8, 8, 8, 4, 4), "aux": True},
)
