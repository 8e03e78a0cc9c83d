"""BiSeNet: a short path of wide maps keeps the detail, an ordinary encoder with attention gives the context.

Paper: Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation",
https://arxiv.org/abs/1808.00897.

Idea: detail needs resolution and few layers, context needs many layers and no resolution. So each has its own path, and
at stride 8 both are concatenated and their channels weighted.

Letters: N batch, C image channels, K classes, H W image, S width of the spatial path's end, P width of the fused map.

How ours differs: nothing in the numbers of MMSegmentation's form, whose weighting has batch norm and one convolution
where the authors' has two without norm.

Any image size: nothing is padded but what the encoder asks for; maps round up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.context_path import ContextPath
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class BiSeNetV1Config(DenseConfig):
    """Settings of a BiSeNet, besides those of `DenseConfig`.

    encoder: an encoder, its output stride and options, of which the maps at strides 16 and 32 are used.
    spatial_channels: width of the spatial path's four convolutions; the last is S.
    context_channels: width of the context path; with S it is fused.
    channels: width of the fused map and of the head, P.
    aux_channels: width of the auxiliary heads.
    align_corners: how logits are upsampled.
    aux: also train heads on the context path, named "stride8" and "stride16".
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet18")
    spatial_channels: tuple[int, int, int, int] = (64, 64, 64, 128)
    context_channels: int = 128
    channels: int = 256
    aux_channels: int = 64
    align_corners: bool = False


class NormedFusion(nn.Module):
    """Detail and context concatenated through a 1x1 convolution, its channels weighted, and added to itself."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, channels, 1)
        self.weigh = ConvBNReLU(channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map detail (N, S, h, w) and context (N, context_channels, h, w) to (N, channels, h, w)."""
        x: Tensor = self.conv(torch.cat([detail, context], dim=1))
        return x + x * self.weigh(F.adaptive_avg_pool2d(x, 1)).sigmoid()


class TwoPathEncoder(PyramidEncoder):
    """The spatial path, and beside it an encoder: detail at stride 8, the encoder's maps at strides 16 and 32."""

    def __init__(self, config: BiSeNetV1Config):
        super().__init__()
        first, second, third, last = config.spatial_channels
        self.spatial = nn.Sequential(
            ConvBNReLU(config.in_channels, first, 7, stride=2),
            ConvBNReLU(first, second, stride=2),
            ConvBNReLU(second, third, stride=2),
            ConvBNReLU(third, last, 1),
        )
        self.deep = create_encoder(config.encoder, in_channels=config.in_channels)
        self.size_divisibility = self.deep.size_divisibility
        self.channels = (last, *self.deep.channels[-2:])
        self.strides = (8, *self.deep.strides[-2:])
        init_weights(self.spatial)

    @property
    def pretrained(self) -> nn.Module:
        """The encoder of the context."""
        return self.deep

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to detail (N, S, H/8, W/8) and two maps for the context."""
        return [self.run_stage(self.spatial, x), *self.deep(x)[-2:]]

    def stages(self) -> list[list[nn.Module]]:
        """Return those of the encoder; the spatial path begins with the first."""
        first, *further = self.deep.stages()
        return [[self.spatial, *first], *further]


class BiSeNetV1(nn.Module):
    """Spatial and context path, their fusion, a 3x3 convolution, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: BiSeNetV1Config):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = TwoPathEncoder(config)
        detail, channels16, channels32 = self.encoder.channels
        width = config.context_channels
        self.context = ContextPath(channels16, channels32, width)
        self.fusion = NormedFusion(detail + width, config.channels)
        self.conv = ConvBNReLU(config.channels, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            for name in ("stride8", "stride16"):
                self.aux_heads[name] = FCNHead(width, config.num_classes, channels=config.aux_channels)
        for part in (self.context, self.fusion, self.conv, self.classifier, self.aux_heads):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def fuse(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map detail and context, both at stride 8, to the map before the classifier."""
        out: Tensor = self.conv(self.fusion(detail, context))
        return out

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, P, H/8, W/8)."""
        return self.fuse(features[0], self.context(features)[1])

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        at16, at8 = self.context(features)
        logits = self.classifier(self.dropout(self.fuse(features[0], at8)))
        aux = {}
        if self.training:
            aux = {name: head(at8 if name == "stride8" else at16) for name, head in self.aux_heads.items()}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


WIDE = {
    "spatial_channels": (256, 256, 256, 512),
    "context_channels": 512,
    "channels": 1024,
    "aux_channels": 256,
}
"""Widths with a ResNet of bottlenecks."""

ARCHITECTURE = Architecture(
    name="bisenetv1",
    title="BiSeNet",
    paper="https://arxiv.org/abs/1808.00897",
    tasks=("semantic",),
    output=SemanticLogits,
    config=BiSeNetV1Config,
    build=BiSeNetV1,
    variants={
        "bisenetv1_r18": {"encoder": "resnet18"},
        "bisenetv1_r50": {"encoder": "resnet50", **WIDE},
        "bisenetv1_r101": {"encoder": "resnet101", **WIDE},
    },
    tiny={
        "encoder": "resnet18_w8",
        "spatial_channels": (4, 4, 4, 8),
        "context_channels": 8,
        "channels": 8,
        "aux_channels": 4,
        "aux": True,
    },
)
