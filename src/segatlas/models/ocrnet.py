"""OCRNet: object-contextual representations.

Paper: Yuan et al. 2020, "Object-Contextual Representations for Semantic Segmentation", https://arxiv.org/abs/1909.11065.

Idea: a first, coarse map of class scores says where in the image each class probably is. The mean feature of each
such soft region describes the class as it looks in this image, and every pixel takes from these descriptions what
suits it, by attention.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last maps concatenated, D decoder width.

How ours differs: nothing in the numbers, which are MMSegmentation's. On several maps (HRNet) the coarse scores, which
come from 1x1 convolutions, are computed before the upsampling; the attention over regions goes through `ops.attend`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.before_upsampling import fuse_before_upsampling
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import HeadConfig
from segatlas.ops.attention import attend
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class OCRNetConfig(HeadConfig):
    """Settings of an OCRNet, besides those of `HeadConfig`.

    levels: how many of the encoder's last maps are upsampled to the finest of them and concatenated. With one, the
        soft regions come from the map before it, through a 3x3 convolution; with more, from the same maps, by 1x1.
    key_channels: width of the attention.
    dropout: fraction of channels dropped before both classifiers while training.
    aux: while training, give the coarse logits of the soft regions too, named "regions", for a loss of their own.
    aux_channels: width before them; None = the channels of their input.
    """

    encoder: EncoderSpec = EncoderSpec(name="hrnet_w18")
    levels: int = 4
    key_channels: int = 256
    dropout: float = 0.0
    aux: bool = True


class RegionHead(nn.Module):
    """Convolution and 1x1 classifier: the coarse logits whose softmax over the image are the soft regions."""

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, kernel_size: int, dropout: float):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, channels, kernel_size)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, maps: list[Tensor], *, align_corners: bool) -> Tensor:
        """Map maps (N, C_i, h_i, w_i), finest first, to logits (N, K, h, w)."""
        x = self.conv(maps[0]) if len(maps) == 1 else self.before_upsampling(maps, align_corners=align_corners)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def before_upsampling(self, maps: list[Tensor], *, align_corners: bool) -> Tensor:
        """Apply the 1x1 convolution to the maps concatenated without building that map."""
        kernels = self.conv.conv.weight.flatten(1).split([x.shape[1] for x in maps], dim=1)
        x = fuse_before_upsampling(maps, kernels, align_corners=align_corners)
        return F.relu(self.conv.bn(x), inplace=True)


class ObjectAttention(nn.Module):
    """Every pixel gets a mean of the regions' features, weighted by how alike pixel and region are."""

    def __init__(self, channels: int, key_channels: int):
        super().__init__()
        self.query = nn.Sequential(ConvBNReLU(channels, key_channels, 1), ConvBNReLU(key_channels, key_channels, 1))
        self.key = nn.Sequential(ConvBNReLU(channels, key_channels, 1), ConvBNReLU(key_channels, key_channels, 1))
        self.value = ConvBNReLU(channels, key_channels, 1)
        self.out = ConvBNReLU(key_channels, channels, 1)

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Map pixels (N, D, h, w) and regions (N, D, K, 1) to context (N, D, h, w)."""
        context: Tensor = self.out(attend(self.query(x), self.key(regions), self.value(regions)))
        return context


class OCRNet(nn.Module):
    """Encoder, soft regions, object-contextual attention, 1x1 classifier: logits at the stride of the finest map."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: OCRNetConfig):
        super().__init__()
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        require_at_least(config, levels=1)
        self.levels, self.align_corners, self.aux = config.levels, config.align_corners, config.aux
        width, in_channels = config.channels, sum(self.encoder.channels[-config.levels :])
        region_channels = in_channels if config.levels > 1 else self.encoder.channels[-2]
        self.region_head = RegionHead(
            region_channels,
            config.aux_channels or region_channels,
            config.num_classes,
            kernel_size=1 if config.levels > 1 else 3,
            dropout=config.dropout,
        )
        self.bottleneck = ConvBNReLU(in_channels, width)
        self.attention = ObjectAttention(width, config.key_channels)
        self.fuse = ConvBNReLU(2 * width, width, 1)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, config.num_classes, kernel_size=1)
        for part in (self.region_head, self.bottleneck, self.attention, self.fuse, self.classifier):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of the auxiliary logits that training gives."""
        return ("regions",) if self.aux else ()

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        return self.decode_with(features, self.region_logits(features))

    def region_logits(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the coarse logits (N, K, h, w)."""
        maps = features[-self.levels :] if self.levels > 1 else [features[-2]]
        logits: Tensor = self.region_head(maps, align_corners=self.align_corners)
        return logits

    def decode_with(self, features: list[Tensor], region_logits: Tensor) -> Tensor:
        """Map the encoder's maps and coarse logits (N, K, h, w) to the map before the classifier."""
        x = self.bottleneck(concatenated(features[-self.levels :], align_corners=self.align_corners))  # (N, D, h, w)
        probabilities = region_logits.flatten(2).softmax(dim=2)  # (N, K, h w): how much of it each pixel is in a region
        regions = x.flatten(2) @ probabilities.transpose(1, 2)  # (N, D, K)
        context = self.attention(x, regions.unsqueeze(3))
        out: Tensor = self.fuse(torch.cat([context, x], dim=1))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        region_logits = self.region_logits(features)
        logits = self.classifier(self.dropout(self.decode_with(features, region_logits)))
        aux = {"regions": region_logits} if self.aux and self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def concatenated(maps: list[Tensor], *, align_corners: bool) -> Tensor:
    """Upsample maps (N, C_i, h_i, w_i) to the size of the first and return them as one of all their channels."""
    finest, *coarser = maps
    size = finest.shape[-2:]
    upsampled = [F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners) for x in coarser]
    return torch.cat([finest, *upsampled], dim=1) if upsampled else finest


_DILATED = {"output_stride": 8, "levels": 1, "dropout": 0.1, "aux_channels": 256}

ARCHITECTURE = Architecture(
    name="ocrnet",
    title="OCRNet",
    paper="https://arxiv.org/abs/1909.11065",
    tasks=("semantic",),
    output=SemanticLogits,
    config=OCRNetConfig,
    build=OCRNet,
    variants={
        "ocrnet_hr18_small": {"encoder": "hrnet_w18_small"},
        "ocrnet_hr18": {"encoder": "hrnet_w18"},
        "ocrnet_hr48": {"encoder": "hrnet_w48"},
        "ocrnet_r101": {"encoder": "resnet101c", **_DILATED},
    },
    tiny={"encoder": "hrnet_w8_small", "channels": 16, "key_channels": 8, "aux": True},
)
