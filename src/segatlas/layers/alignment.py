"""Alignment of a second source: keypoints of both, thin-plate splines between them, blended to one flow.

Papers: Wu et al. 2024, "KF-VTON", https://doi.org/10.1145/3673903; Siarohin et al. 2019, "First Order Motion Model",
https://arxiv.org/abs/2003.00196.

Idea: where maps of image and source agree, both say where each of a few keypoints lies. Each group of keypoints makes a
spline, which is smooth, and a small network says which spline holds where.

Letters: N batch, C channels of the maps at stride 16, G groups, n keypoints of each, S channels of the source, h w the
size at stride 4.

How ours differs from the paper: keypoints are soft arg maxima added to a regular lattice, so that the first step begins
with the identity; the identity is one more flow to be blended in; the blend sees the image too, with which what is
warped has to agree.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.co_attention import CoAttention
from segatlas.layers.hourglass import Hourglass
from segatlas.layers.tps import (
    ThinPlate,
    fit_or_identity,
    heat_maps,
    keypoints_of,
    lattice_points,
    pixel_points,
    warped,
)

REACH = 2 / 3
"""The lattice's outermost keypoints lie so far from the centre, of 1."""
REGULARISATION = 0.01


class Alignment(NamedTuple):
    """How a source lies in an image.

    flow: (N, h, w, 2), for each pixel of the image the point of the source that it shows, in -1..1.
    keypoints: (N, G, n, 2), those of the image. source_keypoints: alike, those of the source.
    fractions: (N, G + 1, h, w), what each spline has of the flow; the last is that of the identity.
    weights: (N, G, n, 2), of the splines: 0 of what is affine.
    """

    flow: Tensor
    keypoints: Tensor
    source_keypoints: Tensor
    fractions: Tensor
    weights: Tensor

    def at(self, size: tuple[int, int]) -> Tensor:
        """Return the flow for maps of (height, width): (N, height, width, 2)."""
        moved = self.flow.permute(0, 3, 1, 2)
        return F.interpolate(moved, size=size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)


class Aligner(nn.Module):
    """Maps of image and source at stride 16, and both as they are at stride 4 -> how the source lies in the image.

    Args:
        channels: of the maps at stride 16, C.
        image_channels: of the image.
        source_channels: of the source, S.
        hidden: channels in which both look at each other.
        groups: splines, G.
        side: keypoints of each, a side of their lattice: n is its square.
        width: of the hourglass that blends.
        depth: of it; maps at stride 4 are multiples of 2^depth.
    """

    def __init__(
        self,
        channels: int,
        image_channels: int,
        source_channels: int,
        *,
        hidden: int = 128,
        groups: int = 4,
        side: int = 3,
        width: int = 32,
        depth: int = 3,
    ):
        super().__init__()
        self.groups, self.side = groups, side
        points = groups * side * side
        self.reduce = nn.ModuleList(nn.Conv2d(channels, hidden, 1) for _ in range(2))
        self.co_attention = CoAttention(hidden, scale=None)
        self.heads = nn.ModuleList(nn.Conv2d(hidden, points, 1) for _ in range(2))
        self.blend = Hourglass(points + image_channels + (groups + 1) * source_channels, width, depth)
        self.fractions = nn.Conv2d(self.blend.channels[-1], groups + 1, 3, padding=1)

    def start_at_identity(self) -> None:
        """Let both keypoints begin on their lattice: no flow."""
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def keypoints(self, image_map: Tensor, source_map: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keypoints of image and source from their maps (N, C, h', w'): (N, G, n, 2) both, float32."""
        both = [reduce(x) for reduce, x in zip(self.reduce, (image_map, source_map), strict=True)]
        found = [
            keypoints_of(head(F.relu(x))).unflatten(1, (self.groups, -1))
            for head, x in zip(self.heads, self.co_attention(*both), strict=True)
        ]
        lattice = lattice_points(self.side, REACH, found[0])
        return found[0] + lattice, found[1] + lattice

    def forward(self, image_map: Tensor, source_map: Tensor, image: Tensor, source: Tensor) -> Alignment:
        """Align a source.

        Args:
            image_map: (N, C, h', w'), the image's at stride 16.
            source_map: the source's, alike.
            image: (N, _, h, w), the image at stride 4.
            source: (N, S, h, w), the source alike.
        """
        keypoints, of_source = self.keypoints(image_map, source_map)
        plate = fit_or_identity(keypoints, of_source, REGULARISATION)
        size = (image.shape[-2], image.shape[-1])
        grids = plate.grid(size)  # (N, G, h, w, 2)
        rest = pixel_points(size, grids).expand(image.shape[0], 1, -1, -1, -1)
        flows = torch.cat([grids, rest], dim=1)
        differences = heat_maps(keypoints, size) - heat_maps(of_source, size)
        seen = torch.cat(
            [differences.flatten(1, 2).to(image.dtype), image, self._warped_by_each(source, grids), source], dim=1
        )
        fractions = self.fractions(self.blend(seen)).to(flows.dtype).softmax(dim=1)
        flow = (fractions.unsqueeze(-1) * flows).sum(dim=1)
        return Alignment(flow, keypoints, of_source, fractions, plate.weights)

    def equivariance(
        self, image_map: Tensor, source_keypoints: Tensor, moved_map: Tensor, moved_by: ThinPlate
    ) -> Tensor:
        """Return how far keypoints of a moved source lie from where they should: (N, G n, 2).

        Args:
            image_map: as of `forward`.
            source_keypoints: those of the source itself.
            moved_map: the map (N, C, h', w') of the source, sampled at the grid of `moved_by`.
            moved_by: takes points of the moved source to points of the source.
        """
        moved = self.keypoints(image_map, moved_map)[1]
        return moved_by(moved.flatten(1, 2)) - source_keypoints.flatten(1, 2)

    def _warped_by_each(self, source: Tensor, grids: Tensor) -> Tensor:
        """Return the source (N, S, h, w) as each spline warps it, concatenated: (N, G S, h, w)."""
        repeated = source.unsqueeze(1).expand(-1, self.groups, -1, -1, -1).flatten(0, 1)
        return warped(repeated, grids.flatten(0, 1)).unflatten(0, (-1, self.groups)).flatten(1, 2)
