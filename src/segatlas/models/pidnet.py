"""PIDNet: a branch for detail (P), one for context (I) and one for boundaries (D) that says which of the two to trust.

Paper: Xu et al. 2023, "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers",
https://arxiv.org/abs/2206.02066.

Idea: where detail and context are simply added, context overshoots small objects. A third branch learns where labels
change, and there the fusion takes the detail; the detailed branch picks from the context by attention on the way.

Letters: N batch, C image channels, K classes, H W image, W width of the stem, D width of the head.

How ours differs: nothing in the numbers.

Any image size: the image is padded to a multiple of 8, and `canvas` says so; the coarser maps round up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU, NormReLUConv, OpenConv
from segatlas.layers.init import init_weights
from segatlas.layers.open_residual import OpenBlock, OpenHead, open_blocks, open_bottlenecks
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_scales import DAPPM, WINDOWS, PooledScales
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

STRIDE = 8
"""Of the branches for detail and boundaries, and of the logits."""
SCALES = len(WINDOWS) + 1
"""Pooled maps of the context beside the map itself."""


@dataclass(frozen=True, kw_only=True)
class PIDNetConfig:
    """Settings of a PIDNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    width: channels of the stem, W; the branches have 2 W, and 4, 8, 16 W.
    detail_blocks: residual blocks of each stage of the stem and of the detailed branch.
    context_blocks: residual blocks of each stage of the context branch.
    light: the form of the small networks: a narrower boundary branch, pooling of all scales at once, fusion by 1x1
        convolutions.
    pool_channels: width of each pooled map of the context.
    channels: width of the head, D.
    align_corners: how logits are upsampled.
    aux: also train a head on the detailed branch, named "detail", and one on the boundary branch, named "boundary".
    """

    num_classes: int
    in_channels: int = 3
    width: int = 32
    detail_blocks: int = 2
    context_blocks: int = 3
    light: bool = True
    pool_channels: int = 96
    channels: int = 128
    align_corners: bool = True
    aux: bool = False

    def __post_init__(self) -> None:
        """Refuse widths and depths below 1."""
        require_at_least(self, width=1, detail_blocks=1, context_blocks=1, pool_channels=1, channels=1)


def upsampled(x: Tensor, like: Tensor) -> Tensor:
    """Return a map at the size of another one."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class PixelAttention(nn.Module):
    """Detail takes from the context where both agree (Pag): a weight a pixel, from the product of their embeddings."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.of_context = OpenConv(in_channels, channels, 1)
        self.of_detail = OpenConv(in_channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map detail (N, in_channels, h, w) and context (N, in_channels, h', w') to (N, in_channels, h, w)."""
        product = self.of_detail(detail) * upsampled(self.of_context(context), detail)
        weight = product.sum(dim=1, keepdim=True).sigmoid()
        return weight * upsampled(context, detail) + (1 - weight) * detail


class ParallelPooling(nn.Module):
    """All scales added to the map at once and convolved in one grouped convolution (PAPPM)."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.pools = PooledScales(in_channels, channels)
        self.processes = NormReLUConv(channels * SCALES, channels * SCALES, groups=SCALES)
        self.fuse = NormReLUConv(channels * (SCALES + 1), out_channels, 1)
        self.shortcut = NormReLUConv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        first, *further = self.pools(x)
        scales = self.processes(torch.cat([pooled + first for pooled in further], dim=1))
        out: Tensor = self.fuse(torch.cat([first, scales], dim=1)) + self.shortcut(x)
        return out


class LightFusion(nn.Module):
    """Detail near boundaries, context elsewhere, each beside the other, by two 1x1 convolutions (Light-Bag)."""

    def __init__(self, channels: int):
        super().__init__()
        self.detail = OpenConv(channels, channels, 1)
        self.context = OpenConv(channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Map three maps (N, channels, h, w) to one."""
        trust = boundary.sigmoid()
        out: Tensor = self.detail((1 - trust) * context + detail) + self.context(context + trust * detail)
        return out


class BoundaryFusion(nn.Module):
    """Detail near boundaries, context elsewhere, through a 3x3 convolution (Bag)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = NormReLUConv(channels, channels)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        """Map three maps (N, channels, h, w) to one."""
        trust = boundary.sigmoid()
        out: Tensor = self.conv(trust * detail + (1 - trust) * context)
        return out


class ThreeBranchEncoder(PyramidEncoder):
    """Stem and three branches: the detail and the boundaries as they were half way, and what all three make."""

    size_divisibility = STRIDE

    def __init__(self, config: PIDNetConfig):
        super().__init__()
        width, deep, wide = config.width, config.context_blocks, 4 * config.width
        self.stem = nn.Sequential(
            ConvBNReLU(config.in_channels, width, stride=2),
            ConvBNReLU(width, width, stride=2),
            open_blocks(width, width, config.detail_blocks),
            nn.ReLU(inplace=True),
            open_blocks(width, 2 * width, config.detail_blocks, stride=2),
            nn.ReLU(inplace=True),
        )
        self.context = nn.ModuleList(
            [
                open_blocks(2 * width, 4 * width, deep, stride=2),
                open_blocks(4 * width, 8 * width, deep, stride=2),
                open_bottlenecks(8 * width, 8 * width, 2, stride=2),
            ]
        )
        self.detail = nn.ModuleList(
            [
                open_blocks(2 * width, 2 * width, config.detail_blocks),
                open_blocks(2 * width, 2 * width, config.detail_blocks),
                open_bottlenecks(2 * width, 2 * width, 1),
            ]
        )
        narrow = width if config.light else 2 * width
        second = open_bottlenecks(width, width, 1) if config.light else OpenBlock(2 * width, 2 * width)
        self.boundary = nn.ModuleList([OpenBlock(2 * width, narrow), second, open_bottlenecks(2 * width, 2 * width, 1)])
        self.to_detail = nn.ModuleList([OpenConv(4 * width, 2 * width, 1), OpenConv(8 * width, 2 * width, 1)])
        self.to_boundary = nn.ModuleList([OpenConv(4 * width, narrow), OpenConv(8 * width, 2 * width)])
        self.attention = nn.ModuleList(PixelAttention(2 * width, width) for _ in range(2))
        pooling = ParallelPooling if config.light else DAPPM
        self.pool = pooling(16 * width, config.pool_channels, wide)
        self.fusion = LightFusion(wide) if config.light else BoundaryFusion(wide)
        self.channels, self.strides = (2 * width, 2 * width, wide), (STRIDE, STRIDE, STRIDE)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to detail and boundaries (N, 2 W, H/8, W/8), and all fused (N, 4 W, H/8, W/8)."""
        detail = context = boundary = self.run_stage(self.stem, x)
        details, boundaries = [], []
        for index in range(2):
            context = F.relu(self.run_stage(self.context[index], context))
            detail = self.run_stage(self.detail[index], F.relu(detail))
            boundary = self.run_stage(self.boundary[index], F.relu(boundary))
            detail = self.attention[index](detail, self.to_detail[index](context))
            boundary = boundary + upsampled(self.to_boundary[index](context), boundary)
            details.append(detail)
            boundaries.append(boundary)
        context = self.pool(self.run_stage(self.context[2], context))  # (N, 4 W, H/64, W/64)
        detail = self.run_stage(self.detail[2], F.relu(detail))
        boundary = self.run_stage(self.boundary[2], F.relu(boundary))
        fused = self.fusion(detail, upsampled(context, detail), boundary)
        return [details[0], boundaries[1], fused]

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, what leads to each exchange with it, and the end."""
        steps = (self.context, self.detail, self.boundary, self.to_detail, self.to_boundary, self.attention)
        exchanges = [[part[index] for part in steps] for index in range(2)]
        last = [self.context[2], self.detail[2], self.boundary[2], self.pool, self.fusion]
        return [[self.stem], *exchanges, last]


class PIDNet(nn.Module):
    """Three-branch encoder, head, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: PIDNetConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = ThreeBranchEncoder(config)
        detail, boundary, end = self.encoder.channels
        self.head = OpenHead(end, config.channels)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            of_detail = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
            of_boundary = nn.Conv2d(config.width, 1, kernel_size=1)
            self.aux_heads["detail"] = nn.Sequential(OpenHead(detail, config.channels), of_detail)
            self.aux_heads["boundary"] = nn.Sequential(OpenHead(boundary, config.width), of_boundary)
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/8, W/8)."""
        out: Tensor = self.head(features[-1])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.decode(features))
        aux = {}
        if self.training:
            aux = {name: head(given) for (name, head), given in zip(self.aux_heads.items(), features, strict=False)}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="pidnet",
    title="PIDNet",
    paper="https://arxiv.org/abs/2206.02066",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PIDNetConfig,
    build=PIDNet,
    variants={
        "pidnet_s": {},
        "pidnet_m": {"width": 64},
        "pidnet_l": {
            "width": 64,
            "detail_blocks": 3,
            "context_blocks": 4,
            "light": False,
            "pool_channels": 112,
            "channels": 256,
        },
    },
    exports_dynamic=False,
    not_dynamic_because="capture asks whether the map at stride 64 and its averages have a second cell, and keeps the "
    "answers",
    tiny={"width": 4, "pool_channels": 8, "channels": 8, "aux": True},
)
