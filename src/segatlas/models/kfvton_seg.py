"""KF-VTON's segmenter: which regions a person would show in another garment, from the person and the garment.

Paper: Wu et al. 2024, "KF-VTON: Keypoints-Driven Flow Based Virtual Try-On Network", ACM TOMM,
https://doi.org/10.1145/3673903. No weights were published; the layout is that of the authors' program.

Idea: person and garment have an encoder each; at the three coarsest maps one co-attention, the same for all three, lets
them look at each other, and a decoder that climbs back up sees both.

Letters: N batch, A channels of the person, B of the garment, K regions, W' width, H W image (padded to the canvas), h w
any map.

The person is the image, in the authors' data 13 channels: the image without its clothes, seven maps of regions, a
drawing of the pose. The garment is the source "garment", a map of numbers.

How ours differs: the published last block ends in an instance norm and a ReLU, so that what it gives is 0 or more, and
of one level in every image, and a sigmoid follows it in training alone. Ours gives the block's output as logits,
without the sigmoid; with `plain_head` a 1x1 convolution follows the block, as everywhere else. Layers that the authors'
program makes and never runs are left out. The image is padded right and bottom to a multiple of 32, which theirs needs.

`multisource` is a network for any two sources from the paper's parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.residual import ResidualEncoder
from segatlas.layers.co_attention import CoAttention
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.residual import ScaledResidual
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, InputSpec, SemanticLogits, image_of, source_of

GARMENT = "garment"
"""Name of the second source."""

LARGEST_STRIDE = 32
LOOKING = 3
"""Maps, from the coarsest on, at which person and garment look at each other."""
BEFORE, AFTER = (8, 12, 8, 8, 4), (4, 4, 4, 2, 1)
"""Channels that each step of the decoder takes and gives, in widths."""


@dataclass(frozen=True, kw_only=True)
class KFVTONSegConfig:
    """Settings of KF-VTON's segmenter.

    num_classes: regions, K; the authors' are 7.
    in_channels: channels of the person, A; the authors' are 13.
    garment_channels: channels of the garment, B.
    width: channels of the first maps, W'; coarser ones have twice and four times as many.
    plain_head: end in a 1x1 convolution, not in the published norm and ReLU.
    """

    num_classes: int
    in_channels: int = 3
    garment_channels: int = 3
    width: int = 64
    plain_head: bool = False

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, garment_channels=1, width=1)

    def source_specs(self) -> tuple[InputSpec, ...]:
        """Return the garment."""
        return (InputSpec(name=GARMENT, kind="map", channels=self.garment_channels),)


class Lateral(nn.Module):
    """What was gathered of coarser maps, doubled and added to this one, through a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, coarser: Tensor, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) and (N, in_channels, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        doubled = F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.conv(doubled + x)
        return out


class KFVTONSeg(nn.Module):
    """Two encoders, one co-attention for three maps, a decoder that sees both branches, the inputs at its end."""

    def __init__(self, config: KFVTONSegConfig):
        super().__init__()
        width = config.width
        self.encoder = ResidualEncoder(config.in_channels, width, "instance")
        self.garment_encoder = ResidualEncoder(config.garment_channels, width, "instance")
        self.co_attention = CoAttention(4 * width)
        narrowed = (4 * width, 2 * width)
        self.laterals = nn.ModuleList(Lateral(4 * width, count) for count in narrowed)
        self.garment_laterals = nn.ModuleList(Lateral(4 * width, count) for count in narrowed)
        self.decoder = nn.ModuleList(
            ScaledResidual(before * width, after * width, "up", "instance")
            for before, after in zip(BEFORE, AFTER, strict=True)
        )
        joined = width + config.in_channels + config.garment_channels
        last = width if config.plain_head else config.num_classes
        self.out = ScaledResidual(joined, last, "same", "instance")
        self.classifier = nn.Conv2d(width, config.num_classes, 1) if config.plain_head else nn.Identity()
        init_weights(self)

    def look(self, maps: list[Tensor], garment_maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return both branches' maps, finest first, the coarsest three after they have looked at each other."""
        pairs = [
            self.co_attention(*pair) if level >= len(maps) - LOOKING else pair
            for level, pair in enumerate(zip(maps, garment_maps, strict=True))
        ]
        return [person for person, _ in pairs], [garment for _, garment in pairs]

    def decode(self, maps: list[Tensor], garment_maps: list[Tensor]) -> Tensor:
        """Map what `look` gives to a map at the image's size: (N, W', H, W)."""
        person, garment = maps[-1], garment_maps[-1]
        x = self.decoder[0](torch.cat([person, garment], dim=1))
        for index, step in enumerate(self.decoder[1:]):
            level = len(maps) - 2 - index
            if index < len(self.laterals):
                person = self.laterals[index](person, maps[level])
                garment = self.garment_laterals[index](garment, garment_maps[level])
            else:
                person, garment = maps[level], garment_maps[level]
            x = step(torch.cat([person, garment, x], dim=1))
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a person (N, A, H, W) and the source "garment" (N, B, H, W) to logits (N, K, H, W), as published >= 0."""
        person, garment = (pad_to_multiple(x, LARGEST_STRIDE) for x in (image_of(inputs), source_of(inputs, GARMENT)))
        decoded = self.decode(*self.look(self.encoder(person), self.garment_encoder(garment)))
        logits = self.classifier(self.out(torch.cat([decoded, garment, person], dim=1)))
        return SemanticLogits(logits, canvas=(person.shape[-2], person.shape[-1]))


ARCHITECTURE = Architecture(
    name="kfvton_seg",
    title="KF-VTON segmenter",
    paper="https://doi.org/10.1145/3673903",
    tasks=("semantic",),
    output=SemanticLogits,
    config=KFVTONSegConfig,
    build=KFVTONSeg,
    tiny={"width": 4},
    needs=Needs(from_config=True),
)
