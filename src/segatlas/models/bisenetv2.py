"""BiSeNet V2: a shallow branch of wide maps for detail, a deep one of narrow maps for meaning, each guiding the other.

Paper: Yu et al. 2021, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation",
https://arxiv.org/abs/2004.02147.

Idea: the detail branch goes down to stride 8 and no further; the semantic branch to stride 32, by cheap
gather-and-expand layers. Where they meet each one's map is the gate of the other's, at both strides (guided
aggregation). Heads on all stages of the semantic branch teach it while training.

Letters: N batch, C image channels, K classes, H W image, D width of both branches' last map, P width of the head.

How ours differs: nothing in the numbers.

Any image size: nothing is padded; maps round up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU, OpenConv
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

DEPTHS = (2, 2, 4)
"""Gather-and-expand layers of each stage of the semantic branch after its stem."""
FUSED = 2
"""Which of the encoder's maps is the one where both branches met."""


@dataclass(frozen=True, kw_only=True)
class BiSeNetV2Config:
    """Settings of a BiSeNet V2.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    detail_channels: width of the detail branch at strides 2, 4, 8; the last is D.
    semantic_channels: width of the semantic branch at strides 4, 8, 16, 32; the last is D too.
    expansion: how many times as wide a gather-and-expand layer is inside.
    channels: width of the head, P.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train heads on the stages of the semantic branch, named "stride4" to "stride32".
    aux_channels: width of each of these heads.
    """

    num_classes: int
    in_channels: int = 3
    detail_channels: tuple[int, int, int] = (64, 64, 128)
    semantic_channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    expansion: int = 6
    channels: int = 1024
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: tuple[int, int, int, int] = (16, 64, 256, 1024)

    def __post_init__(self) -> None:
        """Refuse branches that do not end at one width, and widths that are too small."""
        require_at_least(self, expansion=1, channels=1)
        if self.detail_channels[-1] != self.semantic_channels[-1]:
            raise UsageError(
                f"semantic_channels ends with {self.semantic_channels[-1]}, expected {self.detail_channels[-1]}, as "
                "detail_channels does"
            )
        if self.semantic_channels[0] < 2:
            raise UsageError(f"semantic_channels begins with {self.semantic_channels[0]}, expected 2 or more")


class SemanticStem(nn.Module):
    """To stride 4 by two ways, convolutions and max pooling, concatenated."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.first = ConvBNReLU(in_channels, channels, stride=2)
        self.left = nn.Sequential(
            ConvBNReLU(channels, channels // 2, 1),
            ConvBNReLU(channels // 2, channels, stride=2),
        )
        self.right = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.fuse = ConvBNReLU(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, channels, H/4, W/4)."""
        x = self.first(x)
        out: Tensor = self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))
        return out


class GatherAndExpand(nn.Module):
    """3x3 convolution, a depthwise one to more channels, 1x1 back, and a shortcut; with a stride one depthwise more."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, *, stride: int):
        super().__init__()
        wide = in_channels * expansion
        self.gather = ConvBNReLU(in_channels, in_channels)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.expand = nn.Sequential(ConvBNReLU(in_channels, wide, groups=in_channels))
        else:
            self.expand = nn.Sequential(
                OpenConv(in_channels, wide, stride=stride, groups=in_channels), ConvBNReLU(wide, wide, groups=wide)
            )
            self.shortcut = nn.Sequential(
                OpenConv(in_channels, in_channels, stride=stride, groups=in_channels),
                OpenConv(in_channels, out_channels, 1),
            )
        self.project = OpenConv(wide, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.project(self.expand(self.gather(x))) + shortcut)


class ContextEmbedding(nn.Module):
    """The average of the whole image, normed and convolved, added to every place; then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn = BatchNorm2d(channels)
        self.pooled = ConvBNReLU(channels, channels, 1)
        self.conv = ConvBNReLU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        out: Tensor = self.conv(x + self.pooled(self.bn(F.adaptive_avg_pool2d(x, 1))))
        return out


def depthwise_then_mixed(channels: int) -> nn.Sequential:
    """Return a depthwise 3x3 convolution with batch norm, and a 1x1 convolution with bias."""
    return nn.Sequential(OpenConv(channels, channels, groups=channels), nn.Conv2d(channels, channels, 1))


class GuidedAggregation(nn.Module):
    """Detail gated by meaning at stride 8, meaning gated by detail at stride 32; both summed at stride 8."""

    def __init__(self, channels: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.detail_fine = depthwise_then_mixed(channels)
        self.detail_coarse = nn.Sequential(OpenConv(channels, channels, stride=2), nn.AvgPool2d(3, stride=2, padding=1))
        self.semantic_fine = OpenConv(channels, channels)
        self.semantic_coarse = depthwise_then_mixed(channels)
        self.fuse = ConvBNReLU(channels, channels)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """Map detail (N, D, h, w) and meaning (N, D, h/4, w/4) to (N, D, h, w)."""
        fine = self.detail_fine(detail) * self._upsampled(self.semantic_fine(semantic), detail).sigmoid()
        coarse = self.detail_coarse(detail) * self.semantic_coarse(semantic).sigmoid()
        out: Tensor = self.fuse(fine + self._upsampled(coarse, detail))
        return out

    def _upsampled(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class GuidedEncoder(PyramidEncoder):
    """Both branches and where they meet: the stages of the semantic branch, and at index `FUSED` the fused map."""

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        first, second, last = config.detail_channels
        self.detail = nn.ModuleList(
            [
                nn.Sequential(ConvBNReLU(config.in_channels, first, stride=2), ConvBNReLU(first, first)),
                nn.Sequential(
                    ConvBNReLU(first, second, stride=2), ConvBNReLU(second, second), ConvBNReLU(second, second)
                ),
                nn.Sequential(ConvBNReLU(second, last, stride=2), ConvBNReLU(last, last), ConvBNReLU(last, last)),
            ]
        )
        widths = config.semantic_channels
        self.semantic = nn.ModuleList([SemanticStem(config.in_channels, widths[0])])
        for given, width, depth in zip(widths, widths[1:], DEPTHS, strict=False):
            layers = [GatherAndExpand(given, width, config.expansion, stride=2)]
            layers += [GatherAndExpand(width, width, config.expansion, stride=1) for _ in range(depth - 1)]
            self.semantic.append(nn.Sequential(*layers))
        self.embedding = ContextEmbedding(widths[-1])
        self.aggregation = GuidedAggregation(widths[-1], align_corners=config.align_corners)
        self.channels = (widths[0], widths[1], last, widths[2], widths[3])
        self.strides = (4, 8, 8, 16, 32)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to meaning at strides 4, 8, the fused map at 8, and meaning at 16, 32."""
        detail, meaning = x, [x]
        for stage in self.detail:
            detail = self.run_stage(stage, detail)  # (N, D, H/8, W/8) at the end
        for stage in self.semantic:
            meaning.append(self.run_stage(stage, meaning[-1]))
        fused = self.aggregation(detail, self.embedding(meaning[-1]))
        return [meaning[1], meaning[2], fused, meaning[3], meaning[4]]

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages of both branches, beginning together, and what comes after them with the last."""
        *first, last = [[detail, semantic] for detail, semantic in zip(self.detail, self.semantic, strict=False)]
        return [*first, last, [self.semantic[3], self.embedding, self.aggregation]]


class BiSeNetV2(nn.Module):
    """Both branches, guided aggregation, a 3x3 convolution, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: BiSeNetV2Config):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = GuidedEncoder(config)
        self.conv = ConvBNReLU(self.encoder.channels[FUSED], config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            for stride, given, width in zip((4, 8, 16, 32), config.semantic_channels, config.aux_channels, strict=True):
                self.aux_heads[f"stride{stride}"] = nn.Sequential(
                    ConvBNReLU(given, width),
                    ConvBNReLU(width, width),
                    nn.Dropout2d(0.1),
                    nn.Conv2d(width, config.num_classes, kernel_size=1),
                )
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, P, H/8, W/8)."""
        out: Tensor = self.conv(features[FUSED])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = image_of(inputs)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {}
        if self.training:
            meaning = features[:FUSED] + features[FUSED + 1 :]
            aux = {name: head(given) for (name, head), given in zip(self.aux_heads.items(), meaning, strict=False)}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="bisenetv2",
    title="BiSeNet V2",
    paper="https://arxiv.org/abs/2004.02147",
    tasks=("semantic",),
    output=SemanticLogits,
    config=BiSeNetV2Config,
    build=BiSeNetV2,
    tiny={
        "detail_channels": (4, 4, 8),
        "semantic_channels": (4, 4, 8, 8),
        "expansion": 2,
        "channels": 8,
        "aux": True,
        "aux_channels": (4, 4, 4, 4),
    },
)
