"""STDC-Seg: real-time segmentation that learns detail without a second path.

Paper: Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", https://arxiv.org/abs/2104.13188.

Idea: context comes down from the deep maps through attention (as in BiSeNet); detail comes from the map at stride 8,
which a head of its own teaches, in training only, to draw the borders between labels. So the spatial path of BiSeNet
is not needed.

Letters: N batch, C image channels, K classes, H W image; E8, E16, E32 channels of the encoder's maps at strides 8,
16, 32.

How ours differs: nothing in the numbers. The detail head has one channel, as the authors' has; MMSegmentation's has two
(`detail_channels=2`: not a border, border).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
class STDCConfig(DenseConfig):
    """Settings of an STDC-Seg, besides those of `DenseConfig`.

    encoder: an encoder, its output stride and options, of which the maps at strides 8, 16 and 32 are used.
    context_channels: width of the context path.
    channels: width of the fused map and of the decoder.
    aux_channels: width of the auxiliary heads.
    detail_channels: channels of the detail head: 1, or 2 in MMSegmentation's weights.
    align_corners: how logits are upsampled.
    aux: also train heads on the context path, named "stride8" and "stride16", and the detail head, named "detail".
    """

    encoder: EncoderSpec = EncoderSpec(name="stdc1")
    context_channels: int = 128
    channels: int = 256
    aux_channels: int = 64
    detail_channels: int = 1
    align_corners: bool = True


class FeatureFusion(nn.Module):
    """Detail and context concatenated through a 1x1 convolution, its channels weighted, and added to itself."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, channels, 1)
        self.squeeze = nn.Conv2d(channels, channels // 4, kernel_size=1, bias=False)
        self.excite = nn.Conv2d(channels // 4, channels, kernel_size=1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map detail (N, E8, h, w) and context (N, context_channels, h, w) to (N, channels, h, w)."""
        x: Tensor = self.conv(torch.cat([detail, context], dim=1))
        weights = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return x + x * weights


class STDCSeg(nn.Module):
    """Encoder, context path, fusion with detail, a 3x3 convolution, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: STDCConfig):
        super().__init__()
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        self.align_corners = config.align_corners
        channels8, channels16, channels32 = self.encoder.channels[-3:]
        width, aux = config.context_channels, config.aux_channels
        self.context = ContextPath(channels16, channels32, width)
        self.fusion = FeatureFusion(channels8 + width, config.channels)
        self.conv = ConvBNReLU(config.channels, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            self.aux_heads["stride8"] = FCNHead(width, config.num_classes, channels=aux)
            self.aux_heads["stride16"] = FCNHead(width, config.num_classes, channels=aux)
            self.aux_heads["detail"] = FCNHead(channels8, config.detail_channels, channels=aux)
        for part in (self.context, self.fusion, self.conv, self.classifier, self.aux_heads):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def fuse(self, maps: list[Tensor], context: Tensor) -> Tensor:
        """Map detail (the first of `maps`) and context to the map before the classifier."""
        out: Tensor = self.conv(self.fusion(maps[0], context))
        return out

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, channels, H/8, W/8)."""
        maps = features[-3:]
        return self.fuse(maps, self.context(maps)[1])

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        maps = self.encoder(x)[-3:]
        at16, at8 = self.context(maps)
        logits = self.classifier(self.dropout(self.fuse(maps, at8)))
        aux = {}
        if self.aux_heads and self.training:
            taken = {"stride8": at8, "stride16": at16, "detail": maps[0]}
            aux = {name: self.aux_heads[name](taken[name]) for name in taken}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), Resample(align_corners=self.align_corners), aux)


ARCHITECTURE = Architecture(
    name="stdc",
    title="STDC-Seg",
    paper="https://arxiv.org/abs/2104.13188",
    tasks=("semantic",),
    output=SemanticLogits,
    config=STDCConfig,
    build=STDCSeg,
    variants={"stdc1": {"encoder": "stdc1"}, "stdc2": {"encoder": "stdc2"}},
    tiny={"encoder": "resnet18_w8", "context_channels": 8, "channels": 8, "aux_channels": 4, "aux": True},
)
