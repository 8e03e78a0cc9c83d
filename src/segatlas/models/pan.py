"""PAN: a pyramid attention network.

Paper: Li et al. 2018, "Pyramid Attention Network for Semantic Segmentation", https://arxiv.org/abs/1805.10180.

Idea: the deepest map is weighted, pixel by pixel, by a small pyramid of large kernels on it (feature pyramid
attention); on the way up, the coarse map says by its averages which channels of the finer map count (global attention
upsampling).

Letters: N batch, C image channels, K classes, H W image, h w any map, E channels of the encoder's last map, D decoder
width.

How ours differs: the form is that of segmentation-models-pytorch: convolutions with a bias before their batch norm, one
channel in the small pyramid, encoders of any kind, by default dilated to stride 16, a 3x3 classifier. Its pyramid
halves the deepest map three times and fails where that is smaller than 8x8; ours pads such a map with zeros there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.ops.capture import larger
from segatlas.structures import SemanticLogits

SMALLEST = 8
"""Cells along a side that the small pyramid can halve three times."""


@dataclass(frozen=True, kw_only=True)
class PANConfig(HeadConfig, PresenceConfig):
    """Settings of a PAN, besides those of `HeadConfig` and `PresenceConfig`."""

    encoder: EncoderSpec = EncoderSpec.of("resnet34", output_stride=16, contract_dilation=False)
    dropout: float = 0.0
    channels: int = 32
    align_corners: bool = True


class ConvBN(nn.Module):
    """A convolution with bias that keeps the size, then batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.bn = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.bn(self.conv(x))
        return out


class FeaturePyramidAttention(nn.Module):
    """A map weighted by what 7x7, 5x5 and 3x3 kernels see of it halved once, twice, three times; plus its average."""

    def __init__(self, in_channels: int, channels: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.pooled = ConvBN(in_channels, channels, 1)
        self.own = ConvBN(in_channels, channels, 1)
        self.at_half = ConvBN(in_channels, 1, 7)
        self.at_quarter = ConvBN(1, 1, 5)
        self.at_eighth = nn.ModuleList([ConvBN(1, 1, 3), ConvBN(1, 1, 3)])
        self.from_quarter = ConvBN(1, 1, 5)
        self.from_half = ConvBN(1, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, E, h, w) to (N, D, h, w)."""
        height, width = x.shape[-2:]
        own = F.relu(self.own(x)) * self.weights(x)[..., :height, :width]
        out: Tensor = own + F.relu(self.pooled(F.adaptive_avg_pool2d(x, 1)))
        return out

    def weights(self, x: Tensor) -> Tensor:
        """Map (N, E, h, w) to the weight of each pixel (N, 1, h, w); 8 cells at least along each side."""
        below, right = (larger(SMALLEST - side, 0) for side in x.shape[-2:])
        x = F.pad(x, (0, right, 0, below))
        half = F.relu(self.at_half(F.max_pool2d(x, 2)))
        quarter = F.relu(self.at_quarter(F.max_pool2d(half, 2)))
        eighth = F.max_pool2d(quarter, 2)
        for conv in self.at_eighth:
            eighth = F.relu(conv(eighth))
        height, width = x.shape[-2:]
        y = F.relu(self.from_quarter(quarter)) + self._upsample(eighth, (height // 4, width // 4))
        y = self._upsample(y, (height // 2, width // 2)) + F.relu(self.from_half(half))
        return self._upsample(y, (height, width))

    def _upsample(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)


class GlobalAttentionUpsampling(nn.Module):
    """The coarse map upsampled, plus the finer one with its channels weighted by the coarse one's averages."""

    def __init__(self, skip_channels: int, channels: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.gate = ConvBN(channels, channels, 1)
        self.skip = ConvBN(skip_channels, channels, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (N, D, h', w') and skip (N, skip_channels, h, w) to (N, D, h, w)."""
        gate = self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        upsampled = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        out: Tensor = upsampled + F.relu(self.skip(skip)) * gate
        return out


class PAN(DenseNetwork):
    """Encoder, pyramid attention, attention upsampling to stride 4, 3x3 classifier: logits at stride 4."""

    def __init__(self, config: PANConfig):
        super().__init__(config)
        if 4 not in self.encoder.strides[:-1]:
            raise UsageError(
                f"PAN needs an encoder with a map at stride 4 and a deeper one, {config.encoder} has maps of strides "
                f"{self.encoder.strides}"
            )
        self.first = self.encoder.strides.index(4)
        *finer, last = self.encoder.channels[self.first :]
        width, align = config.channels, config.align_corners
        self.attention = FeaturePyramidAttention(last, width, align_corners=align)
        self.upward = nn.ModuleList(GlobalAttentionUpsampling(skip, width, align_corners=align) for skip in finer)
        self.add_classifier(config, width, self.attention, self.upward, kernel_size=3)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/4, W/4)."""
        *finer, last = features[self.first :]
        x: Tensor = self.attention(last)
        for up, skip in zip(reversed(list(self.upward)), reversed(finer), strict=True):
            x = up(x, skip)
        return x


ARCHITECTURE = Architecture(
    name="pan",
    title="PAN",
    paper="https://arxiv.org/abs/1805.10180",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PANConfig,
    build=PAN,
    variants={
        "pan_r34": {"encoder": "resnet34"},
        "pan_r50": {"encoder": "resnet50"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
    exports_dynamic=False,
    not_dynamic_because="capture asks whether the last map of its small pyramid, of one channel, has a second cell, "
    "and whether maps below 8 x 8 were padded, and keeps the answers",
)
