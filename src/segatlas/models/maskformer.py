"""MaskFormer: a set of masks with a class each, in place of a class for each pixel.

Paper: Cheng et al. 2021, "Per-Pixel Classification is Not All You Need for Semantic Segmentation",
https://arxiv.org/abs/2107.06278.

Idea: a feature pyramid gives a fine map. A fixed number of learned queries look at the coarsest map through the decoder
of a transformer; each then says which class it stands for, or none, and its product with the fine map is its mask.

    image (N, C, H, W) -> encoder -> maps at strides 4 to 32
    coarsest map (N, D, h', w'), with a transformer's encoder on it or without -> pyramid -> features (N, F, h, w)
    queries (N, Q, D) -> layers that look at the coarsest map -> classes (N, Q, K + 1), masks (N, Q, h, w)

Letters: N batch, C image channels, K classes, H W image, D width, F channels of the features, Q queries, h w finest
map, T = h' w' cells of the coarsest one.

How ours differs: nothing in the numbers, which are the authors', MMSegmentation's, MMDetection's and Hugging Face's.
In eval mode masks are made of the last layer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvGroupNorm, ConvGroupNormReLU
from segatlas.layers.deformable_pixel_decoder import start_convolutions
from segatlas.layers.query_decoder import (
    MultiHeadAttention,
    PlainLayer,
    QueryFeedForward,
    sine_positions,
    start_matrices,
)
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.models.query_network import TINY, QueryNetwork, QueryNetworkConfig
from segatlas.structures import QueryLayer, QueryMasks

LEVELS = 4
"""Maps of the encoder that the pyramid takes, its last ones, in all published networks."""


@dataclass(frozen=True, kw_only=True)
class MaskFormerConfig(QueryNetworkConfig):
    """Settings of a MaskFormer. `padding` 1: images stay as large as they are, and masks are stretched.

    pixel_layers: layers of a transformer's encoder on the coarsest map; 0 = none, queries then see the encoder's own.
    layers: layers of queries.
    hidden: width of all feed-forward parts.
    dropout: fraction dropped in the transformers while training.
    """

    pixel_layers: int = 0
    layers: int = 6
    hidden: int = 2048
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, pixel_layers=0, layers=1, hidden=1)


class EncoderLayer(nn.Module):
    """Attention among cells and feed-forward part; each added, then a norm."""

    def __init__(self, config: MaskFormerConfig):
        super().__init__()
        width = config.channels
        self.self_attention = MultiHeadAttention(width, heads=config.heads, dropout=config.dropout)
        self.feed_forward = QueryFeedForward(width, config.hidden, dropout=config.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Map cells (N, T, D) at positions (T, D) to the same shape."""
        placed = x + positions
        x = self.norm1(x + self.dropout(self.self_attention(placed, placed, x)))
        out: Tensor = self.norm2(x + self.feed_forward(x))
        return out


class Pyramid(nn.Module):
    """From the coarsest map to the finest: upsampled by nearest neighbour, added to the next, convolved.

    Args:
        in_channels: of the maps below the coarsest, finest first, then of what begins.
        width: D.
        mask_channels: F.
        groups: of all group norms.
    """

    def __init__(self, in_channels: Sequence[int], width: int, mask_channels: int, *, groups: int):
        super().__init__()
        *finer, coarsest = in_channels
        self.coarsest = ConvGroupNormReLU(coarsest, width, groups=groups)
        self.lateral = nn.ModuleList(ConvGroupNorm(channels, width, groups=groups) for channels in finer)
        self.output = nn.ModuleList(ConvGroupNormReLU(width, width, groups=groups) for _ in finer)
        self.mask_features = nn.Conv2d(width, mask_channels, kernel_size=3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map maps (N, in_channels[i], h_i, w_i), finest first, to features (N, F, h, w)."""
        *finer, coarsest = maps
        x = self.coarsest(coarsest)
        for lateral, output, fine in list(zip(self.lateral, self.output, finer, strict=True))[::-1]:
            x = output(lateral(fine) + F.interpolate(x, size=fine.shape[-2:], mode="nearest"))
        features: Tensor = self.mask_features(x)
        return features


class MaskFormer(QueryNetwork):
    """Encoder, pyramid, layers of queries: classes and masks.

    Parameters: `encoder`; `project`, of the coarsest map; `pixel_layers`; `pyramid`; `query_positions` (Q, D);
    `layers`; `norm`, `classifier`, `mask_embedding`, which all layers share.
    """

    def __init__(self, config: MaskFormerConfig):
        super().__init__(config, LEVELS)
        channels, width = list(self.encoder.channels[-LEVELS:]), config.channels
        self.project = nn.Conv2d(channels[-1], width, kernel_size=1)
        self.pixel_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.pixel_layers))
        if config.pixel_layers:
            channels[-1] = width
        self.pyramid = Pyramid(channels, width, config.mask_channels, groups=config.groups)
        self.query_positions = nn.Parameter(torch.randn(config.queries, width))
        heads, hidden, dropout = config.heads, config.hidden, config.dropout
        self.layers = nn.ModuleList(
            PlainLayer(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(config.layers)
        )
        self.add_heads()
        start_convolutions(self.project)
        start_convolutions(self.pyramid)
        start_matrices(self.pixel_layers)
        start_matrices(self.layers)
        first = self.layers[0].get_submodule("self_attention.v")
        first.get_parameter("weight").requires_grad_(False)  # queries begin as zeros: it never counts

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides: what queries predict after each layer but the last."""
        return super().aux_names[:-1]

    def decode(self, maps: Sequence[Tensor]) -> Sequence[QueryLayer]:
        """See `QueryNetwork`: after each layer, or after the last alone."""
        *finer, coarsest = maps
        grid = (coarsest.shape[-2], coarsest.shape[-1])
        memory = self.project(coarsest).flatten(2).transpose(1, 2)  # (N, T, D)
        positions = sine_positions(grid, self.config.channels, memory)
        for layer in self.pixel_layers:
            memory = layer(memory, positions)
        if self.config.pixel_layers:
            coarsest = memory.transpose(1, 2).unflatten(2, grid)
        features = self.pyramid([*finer, coarsest])
        key = memory + positions
        x = torch.zeros_like(self.query_positions).expand(memory.shape[0], -1, -1)
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x, self.query_positions, key, memory)
            if self.training or index == len(self.layers) - 1:
                found.append(self.predicted(x, features))
        return found


ARCHITECTURE = Architecture(
    name="maskformer",
    title="MaskFormer",
    paper="https://arxiv.org/abs/2107.06278",
    tasks=("semantic", "panoptic", "instance"),
    output=QueryMasks,
    config=MaskFormerConfig,
    build=MaskFormer,
    needs=Needs(
        targets=("SemanticTarget", "SegmentsTarget", "InstancesTarget"),
        losses=("query_maps", "query_points"),
        further_losses=("query_boxes",),
    ),
    variants={
        "maskformer_r50": {"encoder": "resnet50"},
        "maskformer_r101": {"encoder": "resnet101"},
        "maskformer_r50_panoptic": {"encoder": "resnet50", "pixel_layers": 6, "padding": 1},
        "maskformer_swin_t": {"encoder": "swin_tiny"},
        "maskformer_swin_s": {"encoder": "swin_small"},
        "maskformer_swin_b": {"encoder": "swin_base", "encoder_options": {"window": 12}},
        "maskformer_swin_l": {"encoder": "swin_large", "encoder_options": {"window": 12}},
    },
    tiny={"encoder": "resnet18_w8", "pixel_layers": 1, "layers": 2, **TINY},
)
