"""SegNeXt: an encoder of convolutional attention and a decoder that rebuilds its map from a few basic patterns.

Paper: Guo et al. 2022, "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation",
https://arxiv.org/abs/2209.08575; the decoder: Geng et al. 2021, "Is Attention Better Than Matrix Decomposition?",
https://arxiv.org/abs/2109.04553.

Idea: the whole image shows in the map of a scene, since few patterns explain most of it. The map, read as a matrix of
channels by pixels, is factored into R non-negative patterns and what each pixel has of them (multiplicative updates,
Lee and Seung 1999); their product is the map without what is not common.

Letters: N batch, C image channels, K classes, H W image, h w map at stride 8, D decoder width, n = h w, R patterns.

How ours differs: the published network draws the patterns it begins with anew for every image, so that two predictions
of one image differ. Ours draws them once, from `patterns_seed`, and begins with the same for every image: evaluation
repeats bit by bit. While training they are drawn anew, as published. The first convolution meets each map at its own
size, before the upsampling, which commutes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.before_upsampling import fuse_before_upsampling
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.structures import SemanticLogits

PADDED_TO = 32
"""Sides of the image are padded to multiples of it, as the published network does: all pixels share the patterns."""

GROUPS = 32
"""Of the group norms."""

TRAIN_STEPS, EVAL_STEPS = 6, 7
"""Updates of patterns and fractions; one of the fractions alone follows."""

TINY = 1e-6
"""Keeps denominators from zero."""


@dataclass(frozen=True, kw_only=True)
class SegNeXtConfig(HeadConfig):
    """Settings of a SegNeXt, besides those of `HeadConfig`.

    encoder: an encoder and its options.
    channels: decoder width, D, a multiple of 32.
    levels: how many of the encoder's last maps are joined.
    patterns: how many the map is rebuilt from, R.
    patterns_seed: of the patterns that evaluation begins with.
    """

    encoder: EncoderSpec = EncoderSpec(name="mscan_t")
    channels: int = 256
    levels: int = 3
    patterns: int = 16
    patterns_seed: int = 0


class NormedConv(nn.Module):
    """A 1x1 convolution without bias and group norm."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class Decomposition(nn.Module):
    """Non-negative matrix factorisation of a map: patterns (D, R) times what each pixel has of them (R, n)."""

    start: Tensor

    def __init__(self, width: int, patterns: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        start = torch.rand(1, width, patterns, generator=generator, device="cpu")
        self.register_buffer("start", start, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w), nowhere negative, to the same shape."""
        matrix = x.flatten(2)  # (N, D, n)
        start = torch.rand_like(self.start.expand(x.shape[0], -1, -1)) if self.training else self.start
        patterns = F.normalize(start.to(x), dim=1).expand(x.shape[0], -1, -1)  # (N, D, R)
        fractions = torch.softmax(matrix.mT @ patterns, dim=2)  # (N, n, R)
        for _ in range(TRAIN_STEPS if self.training else EVAL_STEPS):
            fractions = updated(fractions, matrix.mT, patterns)
            patterns = updated(patterns, matrix, fractions)
        fractions = updated(fractions, matrix.mT, patterns)
        return (patterns @ fractions.mT).unflatten(2, x.shape[2:])


def updated(factor: Tensor, matrix: Tensor, other: Tensor) -> Tensor:
    """Return the factor (N, a, R) that brings its product with `other` (N, b, R) nearer to the matrix (N, a, b)."""
    return factor * (matrix @ other) / (factor @ (other.mT @ other) + TINY)


class Hamburger(nn.Module):
    """The decomposition between two 1x1 convolutions, added to its input."""

    def __init__(self, width: int, patterns: int, seed: int):
        super().__init__()
        self.before = nn.Conv2d(width, width, 1)
        self.decomposition = Decomposition(width, patterns, seed)
        self.after = NormedConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        return F.relu(x + self.after(self.decomposition(F.relu(self.before(x)))))


class SegNeXt(DenseNetwork):
    """Encoder, the last maps joined, rebuilt from patterns, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: SegNeXtConfig):
        super().__init__(config)
        require_at_least(config, levels=1, patterns=1, patterns_seed=0)
        if config.channels % GROUPS:
            raise UsageError(f"channels: got {config.channels}, expected a multiple of {GROUPS}")
        self.size_divisibility = lcm(PADDED_TO, self.size_divisibility)
        self.levels, width = config.levels, config.channels
        self.squeeze = NormedConv(sum(self.encoder.channels[-config.levels :]), width)
        self.hamburger = Hamburger(width, config.patterns, config.patterns_seed)
        self.align = NormedConv(width, width)
        self.add_classifier(config, width, self.squeeze, self.hamburger, self.align)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        maps = features[-self.levels :]
        bounds = accumulate((x.shape[1] for x in maps), initial=0)
        kernels = [self.squeeze.conv.weight.flatten(1)[:, start:end] for start, end in pairwise(bounds)]
        x = fuse_before_upsampling(maps, kernels, align_corners=self.align_corners)
        x = self.hamburger(F.relu(self.squeeze.norm(x)))
        return F.relu(self.align(x))


ARCHITECTURE = Architecture(
    name="segnext",
    title="SegNeXt",
    paper="https://arxiv.org/abs/2209.08575",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SegNeXtConfig,
    build=SegNeXt,
    variants={
        "segnext_t": {"encoder": "mscan_t"},
        "segnext_s": {"encoder": "mscan_s"},
        "segnext_b": {"encoder": "mscan_b", "channels": 512},
        "segnext_l": {"encoder": "mscan_l", "encoder_options": {"drop_path": 0.3}, "channels": 1024},
    },
    tiny={"encoder": "mscan_w8", "channels": 32, "patterns": 4},
)
