"""FC-Siam: what has changed between two images of one place; a small U-Net that sees both.

Paper: Daudt, Le Saux, Boulch 2018, "Fully Convolutional Siamese Networks for Change Detection", ICIP,
https://arxiv.org/abs/1810.08462.

Idea: one encoder with the same weights looks at each date. The decoder takes at every size what the two say there: the
absolute difference of their maps (FC-Siam-diff) or both maps (FC-Siam-conc). FC-EF joins the dates before the encoder.

Letters: N batch, C image channels, K classes, H W image, W' width of the first level.

How ours differs: the decoder's layers that keep the size are ordinary convolutions (a transposed one of stride 1 is the
same with its kernel turned round), without the bias that batch norm takes away again. With the authors' random weights
carried over it gives their numbers, see docs/models.md; their repository holds no trained ones.

Any image size: maps are pooled without padding, and the decoder's are grown by their last row and column to the size of
the encoder's. Only an image of fewer than 16 pixels a side is padded to that, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_least
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.ops.capture import may_differ
from segatlas.structures import Inputs, InputSpec, SemanticLogits, image_of, source_of

BEFORE = "before"
"""Name of the image of the earlier date; "image" is the later one."""

SMALLEST = 16
CONVOLUTIONS = (2, 2, 3, 3)
"""Convolutions of each level of the encoder."""


@dataclass(frozen=True, kw_only=True)
class FCSiamConfig:
    """Settings of an FC-Siam.

    num_classes: classes, K; the authors' two are "unchanged" and "changed".
    in_channels: channels of an image, C, the same at both dates.
    fusion: where the dates meet: "difference" (FC-Siam-diff) or "both" (FC-Siam-conc) of the maps at each size, "early"
        = before the encoder (FC-EF).
    width: channels of the first level, W', doubled at each further one.
    dropout: fraction of channels dropped after each convolution while training.
    """

    num_classes: int
    in_channels: int = 3
    fusion: Literal["difference", "both", "early"] = "difference"
    width: int = 16
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, width=1)


class Convs(nn.Sequential):
    """3x3 convolutions, each with batch norm, ReLU and dropout of channels, through the channels given."""

    def __init__(self, *channels: int, dropout: float):
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [ConvBNReLU(before, after), nn.Dropout2d(dropout)]
        super().__init__(*layers)


class SiamEncoder(PyramidEncoder):
    """Four levels of convolutions with 2x2 max pooling between them."""

    def __init__(self, in_channels: int, width: int, dropout: float):
        super().__init__()
        self.strides = (1, 2, 4, 8)
        self.channels = tuple(width * stride for stride in self.strides)
        levels = zip((in_channels, *self.channels[:-1]), self.channels, CONVOLUTIONS, strict=True)
        self.levels = nn.ModuleList(Convs(before, *[after] * count, dropout=dropout) for before, after, count in levels)
        self.pool = nn.MaxPool2d(kernel_size=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 1, 2, 4, 8."""
        features = [self.run_stage(self.levels[0], x)]
        for level in list(self.levels)[1:]:
            features.append(self.run_stage(level, self.pool(features[-1])))
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the four levels."""
        return [[level] for level in self.levels]


class SkipStep(nn.Module):
    """One step of the decoder: a transposed convolution doubles the map, then what the encoder says, convolutions."""

    def __init__(self, channels: int, skip_channels: int, convolutions: int, out_channels: int, dropout: float):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, kernel_size=3, stride=2, padding=1, output_padding=1)
        kept = [channels] * (convolutions - 1)
        self.convs = Convs(channels + skip_channels, *kept, out_channels, dropout=dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (N, channels, h // 2, w // 2) and skip (N, skip_channels, h, w) to (N, out_channels, h, w)."""
        x = self.up(x)
        missing = (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2])
        x = F.pad(x, missing, mode="replicate") if may_differ(missing, (0, 0, 0, 0)) else x
        out: Tensor = self.convs(torch.cat([x, skip], dim=1))
        return out


class FCSiam(nn.Module):
    """Two dates in, logits at stride 1 out."""

    def __init__(self, config: FCSiamConfig):
        super().__init__()
        self.fusion = config.fusion
        is_early, both = config.fusion == "early", config.fusion == "both"
        self.encoder = SiamEncoder(config.in_channels * (2 if is_early else 1), config.width, config.dropout)
        self.pool = nn.MaxPool2d(kernel_size=2)
        channels = self.encoder.channels
        self.decoder = nn.ModuleList(
            SkipStep(channels[level], channels[level] * (2 if both else 1), count, channels[level - 1], config.dropout)
            for level, count in ((3, 3), (2, 3), (1, 2))
        )
        last = channels[0]
        self.decoder.append(SkipStep(last, last * (2 if both else 1), 1, last, config.dropout))
        self.classifier = nn.Conv2d(last, config.num_classes, kernel_size=3, padding=1)
        init_weights(self)

    def encode(self, before: Tensor, after: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map, pooled (N, 8 W', H/16, W/16), and what the dates say at strides 1, 2, 4, 8."""
        if self.fusion == "early":
            maps = self.encoder(torch.cat([before, after], dim=1))
            return self.pool(maps[-1]), maps
        pairs = list(zip(self.encoder(before), self.encoder(after), strict=True))
        deepest = self.pool(pairs[-1][1])  # the later date's, as the authors have it
        if self.fusion == "both":
            return deepest, [torch.cat(pair, dim=1) for pair in pairs]
        return deepest, [(first - second).abs() for first, second in pairs]

    def decode(self, deepest: Tensor, said: list[Tensor]) -> Tensor:
        """Map what `encode` gives to the map before the classifier: (N, W', H, W)."""
        x = deepest
        for step, skip in zip(self.decoder, said[::-1], strict=True):
            x = step(x, skip)
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) and the source "before", alike, to logits (N, K, H, W)."""
        after, before = (pad_to_least(x, SMALLEST) for x in (image_of(inputs), source_of(inputs, BEFORE)))
        logits = self.classifier(self.decode(*self.encode(before, after)))
        return SemanticLogits(logits, canvas=(after.shape[-2], after.shape[-1]))


ARCHITECTURE = Architecture(
    name="fc_siam",
    title="FC-Siam",
    paper="https://arxiv.org/abs/1810.08462",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FCSiamConfig,
    build=FCSiam,
    variants={
        "fc_siam_diff": {"fusion": "difference"},
        "fc_siam_conc": {"fusion": "both"},
        "fc_ef": {"fusion": "early"},
    },
    tiny={"width": 4},
    needs=Needs(inputs=(InputSpec(name=BEFORE, kind="image"),)),
)
