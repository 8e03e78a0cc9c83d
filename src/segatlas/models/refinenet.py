"""RefineNet: every map of the encoder refines the coarser one, along long ways of plain sums.

Paper: Lin et al. 2017, "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation",
https://arxiv.org/abs/1611.06612.

Idea: four stages, from the deepest map to the finest. Each adapts its map by residual convolution units, adds the
coarser stage's result, gathers context by chained residual pooling (pool and convolve again and again, adding each
time), and hands on. All along there are short ways for the gradient.

Letters: N batch, C image channels, K classes, H W image, h w any map, W a stage's width.

How ours differs: nothing in the numbers of the published PyTorch form (no batch norm in the decoder). The improved
pooling of the later journal version, which convolves before it pools, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseConfig, DenseNetwork
from segatlas.structures import SemanticLogits

STAGES = 4
BEFORE, AFTER = 2, 3
"""Residual convolution units of a stage before and after the pooling."""
POOLINGS = 4
START = 0.01
"""Standard deviation of the decoder's starting weights: its many sums have no norm and would grow."""
DROPPED = 2
"""Maps, the deepest ones, of which channels are dropped."""


@dataclass(frozen=True, kw_only=True)
class RefineNetConfig(DenseConfig):
    """Settings of a RefineNet, besides those of `DenseConfig`.

    dropout: fraction of channels dropped while training, of the two deepest maps and before the classifier.
    channels: width of all stages but the deepest.
    deep_channels: width of the deepest.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet101")
    dropout: float = 0.5
    channels: int = 256
    deep_channels: int = 512


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


class ResidualUnit(nn.Module):
    """ReLU and 3x3 convolution, twice, added to what was given."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, W, h, w) to the same shape."""
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class ChainedPooling(nn.Module):
    """Pool 5x5 at stride 1 and convolve, again and again; the sum of all and of what was given."""

    def __init__(self, channels: int):
        super().__init__()
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(POOLINGS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, W, h, w) to the same shape."""
        top = x
        for conv in self.convs:
            top = conv(F.max_pool2d(top, kernel_size=5, stride=1, padding=2))
            x = x + top
        return x


class Stage(nn.Module):
    """Adapt the encoder's map, add the coarser stage's, pool in a chain, refine, and lead to the next stage's width."""

    def __init__(self, in_channels: int, width: int, *, fuses: bool, next_width: int | None):
        super().__init__()
        self.reduce = conv3x3(in_channels, width)
        self.adapt = nn.Sequential(*(ResidualUnit(width) for _ in range(BEFORE)))
        self.fuse = conv3x3(width, width) if fuses else nn.Identity()
        self.pool = ChainedPooling(width)
        self.refine = nn.Sequential(*(ResidualUnit(width) for _ in range(AFTER)))
        self.lead = nn.Identity() if next_width is None else conv3x3(width, next_width)

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Map (N, in_channels, h, w) and the coarser stage's (N, W, h', w') to (N, next_width or W, h, w)."""
        x = self.fuse(self.adapt(self.reduce(x)))
        if coarser is not None:
            size = (x.shape[-2], x.shape[-1])
            x = x + F.interpolate(coarser, size=size, mode="bilinear", align_corners=True)
        out: Tensor = self.lead(self.refine(self.pool(F.relu(x))))
        return out


class RefineNet(DenseNetwork):
    """Encoder, four stages from its deepest map to its finest, 3x3 classifier: logits at stride 4."""

    def __init__(self, config: RefineNetConfig):
        super().__init__(config)
        require_at_least(config, channels=1, deep_channels=1)
        given = self.encoder.channels[-STAGES:]
        if len(given) < STAGES:
            raise UsageError(f"encoder: RefineNet takes {STAGES} maps, {config.encoder.name} gives {len(given)}")
        widths = (config.deep_channels, *(config.channels,) * (STAGES - 1))
        self.stages = nn.ModuleList(
            Stage(
                channels,
                widths[index],
                fuses=index > 0,
                next_width=widths[index + 1] if index + 1 < STAGES else None,
            )
            for index, channels in enumerate(given[::-1])
        )
        self.add_classifier(config, config.channels, kernel_size=3)
        for module in (*self.stages.modules(), self.classifier):
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=START)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, channels, H/4, W/4)."""
        x = None
        for index, stage in enumerate(self.stages):
            given = features[-1 - index]
            x = stage(self.dropout(given) if index < DROPPED else given, x)
        assert x is not None
        return x


ARCHITECTURE = Architecture(
    name="refinenet",
    title="RefineNet",
    paper="https://arxiv.org/abs/1611.06612",
    tasks=("semantic",),
    output=SemanticLogits,
    config=RefineNetConfig,
    build=RefineNet,
    variants={f"refinenet_r{depth}": {"encoder": f"resnet{depth}"} for depth in (50, 101, 152)},
    tiny={"encoder": "resnet18_w8", "channels": 8, "deep_channels": 16, "aux": True},
)
