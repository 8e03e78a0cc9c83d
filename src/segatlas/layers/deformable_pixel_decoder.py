"""The pixel decoder of Mask2Former: cells of several maps look at places of all of them, and a finer map follows.

Paper: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation",
https://arxiv.org/abs/2112.01527, section 3.3; its transformer is Deformable DETR's, Zhu et al. 2021,
https://arxiv.org/abs/2010.04159.

Letters: N batch, D width, C channels of the map that masks are made of, L maps that the transformer sees, coarsest
first everywhere here, T cells of all of them, T_i of one, h w the finest map of all, which it does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvGroupNorm, ConvGroupNormReLU
from segatlas.layers.deformable_attention import DeformableAttention, Grid, centers
from segatlas.layers.query_decoder import QueryFeedForward, sine_positions


class DecodedMaps(NamedTuple):
    """What the pixel decoder gives.

    features: (N, C, h, w), what masks are made of.
    cells: (N, T_i, D) of each map that the transformer saw, coarsest first. grids: their rows and columns.
    """

    features: Tensor
    cells: tuple[Tensor, ...]
    grids: tuple[Grid, ...]


class DeformableLayer(nn.Module):
    """Deformable attention and feed-forward part, each added to its input and followed by a norm."""

    def __init__(self, width: int, *, heads: int, levels: int, points: int, hidden: int):
        super().__init__()
        self.attention = DeformableAttention(width, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = QueryFeedForward(width, hidden)
        self.norm2 = nn.LayerNorm(width)
        for layer in (self.feed_forward.fc1, self.feed_forward.fc2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map cells (N, T, D), which stand at positions (T, D) and references (T, 2), to the same shape."""
        x = self.norm1(x + self.attention(x + positions, references, x, grids))
        out: Tensor = self.norm2(x + self.feed_forward(x))
        return out


class DeformablePixelDecoder(nn.Module):
    """Transformer over the coarser maps, then the finer ones from it step by step.

    Args:
        in_channels: of the encoder's maps, finest first.
        width: D.
        mask_channels: C.
        levels: L; the maps before them are added by the way of a feature pyramid.
        layers: of the transformer.
        hidden: width of its feed-forward parts.
        heads: of its attention.
        points: places that a head looks at in each map.
        groups: of all group norms.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        mask_channels: int,
        *,
        levels: int = 3,
        layers: int = 6,
        hidden: int = 1024,
        heads: int = 8,
        points: int = 4,
        groups: int = 32,
    ):
        super().__init__()
        self.levels, self.width = levels, width
        coarse_first = in_channels[::-1]
        self.project = nn.ModuleList(ConvGroupNorm(c, width, groups=groups, bias=True) for c in coarse_first[:levels])
        self.level_embedding = nn.Parameter(torch.randn(levels, width))
        self.layers = nn.ModuleList(
            DeformableLayer(width, heads=heads, levels=levels, points=points, hidden=hidden) for _ in range(layers)
        )
        self.lateral = nn.ModuleList(ConvGroupNorm(c, width, groups=groups) for c in coarse_first[levels:])
        self.output = nn.ModuleList(ConvGroupNormReLU(width, width, groups=groups) for _ in self.lateral)
        self.mask_features = nn.Conv2d(width, mask_channels, kernel_size=1)
        start_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> DecodedMaps:
        """Map the encoder's maps (N, in_channels[i], h_i, w_i), finest first, to what masks are made of."""
        coarse_first = list(maps)[::-1]
        projected = [layer(x) for layer, x in zip(self.project, coarse_first, strict=False)]
        grids = tuple((x.shape[-2], x.shape[-1]) for x in projected)
        x = torch.cat([part.flatten(2).transpose(1, 2) for part in projected], dim=1)  # (N, T, D)
        places = [sine_positions(grid, self.width, x) for grid in grids]
        positions = torch.cat([place + level for place, level in zip(places, self.level_embedding, strict=True)])
        references = centers(grids, x.device)
        for layer in self.layers:
            x = layer(x, positions, references, grids)
        cells = x.split([height * width for height, width in grids], dim=1)
        finest = cells[-1].transpose(1, 2).unflatten(2, grids[-1])
        for lateral, output, fine in zip(self.lateral, self.output, coarse_first[self.levels :], strict=True):
            size = fine.shape[-2:]
            finest = output(lateral(fine) + F.interpolate(finest, size=size, mode="bilinear", align_corners=False))
        return DecodedMaps(self.mask_features(finest), cells, grids)


def start_convolutions(root: nn.Module) -> None:
    """Set the authors' starting weights of convolutions: uniform, variance 1 / fan-in; every bias 0."""
    for module in root.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
