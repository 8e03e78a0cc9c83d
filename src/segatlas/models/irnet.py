"""IRNet: borders of classes and displacements to objects' middles, learned from labels that are sure in places only.

Paper: Ahn et al. 2019, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
https://arxiv.org/abs/1904.05044.

Idea: activation maps of a network that learned classes of whole images are sure of few pixels. Whether two of those
near each other have one class says whether a border lies on the straight way between them. So this network learns from
pairs of sure pixels where borders are (loss `pixel_relations`), and knows it everywhere; a random walk that does not
cross borders then carries activation maps to all of the object (`segatlas pseudo --spread walk`). A second branch says
for each pixel where the middle of its object lies, learned from the differences within pairs alone.

    host's encoder -> maps -> 1x1, GN -> stride 4, ReLU, each -> concat -> 1x1 -> border (N, 1, h, w)
                       '----> 1x1, GN -> coarse ones: stride 8, concat -> 1x1, GN
                                     '-> fine ones, that one: stride 4, concat -> 1x1, GN, ReLU -> 1x1 -> (N, 2, h, w)
    host -> activation maps, as they are

Letters: N batch, C image channels, K classes, H W canvas, h w = H / 4, W / 4, rounded up.

How ours differs: any host and encoder, where theirs is a ResNet-50 of stride 16; maps finer than stride 4 are averaged
to it. The mean of the displacements, which no difference of them shows, is taken off by its running average, where
theirs is counted over all of train after the last step. What the two branches say never changes their host: no gradient
goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.conv import ConvGroupNorm, ConvGroupNormReLU
from segatlas.layers.init import init_weights
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.host import HostSpec, aux_names_of
from segatlas.models.hosted import HostedNetwork, HostWithMaps, require_maps
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, SemanticLogits

STRIDE = 4
"""Pixels of the canvas along a side of a cell of the two results."""
COARSE = 8
"""Stride at which maps of this one and of larger ones are put together."""
MOST_GROUPS, SMALLEST_GROUP = 16, 8
"""Of group norms: as many groups, but none of fewer channels."""
MOMENTUM = 0.1
"""Of the running mean of displacements."""


@dataclass(frozen=True, kw_only=True)
class IRNetConfig:
    """Settings of IRNet.

    num_classes: classes, K, the host's too.
    in_channels: channels of the image, C, the host's too.
    host: the network that gives the activation maps, and whose encoder's maps are read: its name and its own fields.
    edge_channels: of each map in the branch of borders.
    channels: of the coarse maps, and of what is put together, in the branch of displacements; the map of stride 4 has
        half as many, finer ones a quarter.
    """

    num_classes: int
    in_channels: int = 3
    host: HostSpec | None = None
    edge_channels: int = 32
    channels: int = 256


class Edges(nn.Module):
    """The branch of borders."""

    def __init__(self, in_channels: tuple[int, ...], channels: int):
        super().__init__()
        self.reduce = nn.ModuleList(ConvGroupNorm(width, channels, groups=_groups(channels)) for width in in_channels)
        self.classifier = nn.Conv2d(channels * len(in_channels), 1, 1)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits of borders (N, 1, h, w) from the encoder's maps, none finer than (h, w)."""
        reduced = [_upsample(step(x), size).relu() for step, x in zip(self.reduce, maps, strict=True)]
        out: Tensor = self.classifier(torch.cat(reduced, dim=1))
        return out


class Displacements(nn.Module):
    """The branch of displacements."""

    mean: Tensor

    def __init__(self, in_channels: tuple[int, ...], strides: tuple[int, ...], channels: int):
        super().__init__()
        widths = [channels if stride >= COARSE else channels // (2 if stride == STRIDE else 4) for stride in strides]
        self.reduce = nn.ModuleList(
            ConvGroupNorm(width, out, groups=_groups(out)) for width, out in zip(in_channels, widths, strict=True)
        )
        self.fine = sum(stride < COARSE for stride in strides)
        coarse, fine = sum(widths[self.fine :]), sum(widths[: self.fine])
        self.fuse_coarse = ConvGroupNorm(coarse, channels, groups=_groups(channels))
        self.fuse = ConvGroupNormReLU(fine + channels, channels, 1, groups=_groups(channels))
        self.predict = nn.Conv2d(channels, 2, 1, bias=False)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return displacements (N, 2, h, w), down and right, in cells; outside training less their mean."""
        reduced = [step(x) for step, x in zip(self.reduce, maps, strict=True)]
        half = (-(-size[0] // 2), -(-size[1] // 2))
        coarse = self.fuse_coarse(torch.cat([_upsample(x, half).relu() for x in reduced[self.fine :]], dim=1))
        parts = [_upsample(x, size).relu() for x in (*reduced[: self.fine], coarse)]
        found: Tensor = self.predict(self.fuse(torch.cat(parts, dim=1)))
        if not self.training:
            return found - self.mean.view(1, 2, 1, 1)
        with torch.no_grad():
            self.mean.lerp_(found.mean(dim=(0, 2, 3)).to(self.mean), MOMENTUM)
        return found


class IRNet(HostedNetwork):
    """A host that gives activation maps, and what relates pixels to each other, learned beside it."""

    def __init__(self, config: IRNetConfig, host: nn.Module):
        super().__init__(host)
        encoder = require_maps(host, config.host).encoder
        if encoder.strides[-1] < COARSE:
            raise UsageError(f"host: its encoder's last stride is {encoder.strides[-1]}; irnet needs {COARSE} or more")
        self.edges = Edges(encoder.channels, config.edge_channels)
        self.displacements = Displacements(encoder.channels, encoder.strides, config.channels)
        init_weights(self.edges)
        init_weights(self.displacements)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides logits: "relations", then the host's."""
        return ("relations", *aux_names_of(self.host))

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to what the host makes of it, in training with the relations."""
        if not self.training:
            out: SemanticLogits = self.host(inputs)
            return out
        out, relations = self.forward_with_relations(inputs)
        return out._replace(aux={"relations": relations, **out.aux})

    def forward_with_relations(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, Tensor]:
        """Return the host's output, and (N, 3, h, w): logits of borders, displacements down and right in cells."""
        out, maps, _ = cast(HostWithMaps, self.host).forward_with_maps(inputs)
        size = (-(-out.canvas[0] // STRIDE), -(-out.canvas[1] // STRIDE))
        maps = [_average(x.detach(), size) for x in maps]
        return out, torch.cat([self.edges(maps, size), self.displacements(maps, size)], dim=1)


def _groups(channels: int) -> int:
    """Return the number of groups of a norm of so many channels."""
    return max(1, min(MOST_GROUPS, channels // SMALLEST_GROUP))


def _average(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map that is finer than `size` averaged to it, others as they are."""
    return F.adaptive_avg_pool2d(x, size) if x.shape[-2] > size[0] or x.shape[-1] > size[1] else x


def _upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map at a size, interpolated bilinearly."""
    if (x.shape[-2], x.shape[-1]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def build(config: IRNetConfig, host: nn.Module) -> IRNet:
    """Make the network around a finished host."""
    require_at_least(config, edge_channels=1, channels=4)
    return IRNet(config, host)


ARCHITECTURE = Architecture(
    name="irnet",
    title="IRNet",
    paper="https://arxiv.org/abs/1904.05044",
    tasks=("semantic",),
    output=SemanticLogits,
    config=IRNetConfig,
    build=build,
    tiny={
        "host": {"name": "unet", "encoder": "resnet18_w8", "decoder_channels": (8, 8, 8, 4, 4)},
        "edge_channels": 4,
        "channels": 8,
    },
    needs=Needs(host=("SemanticLogits",)),
)
