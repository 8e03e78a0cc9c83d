"""The frame of networks whose queries look at maps of an encoder, and their settings. It is no architecture.

    image (N, C, H, W) -> pad -> encoder -> last maps -> what queries look at -> layers of queries
    -> classes (N, Q, K + 1), masks (N, Q, h, w)

An architecture says how maps become what queries predict, `decode`. Where queries look at three maps in turn, each only
at the cells that the mask which it gave last covers, `MaskedQueryNetwork` says it, and an architecture says with what
queries begin, `first_queries`.

Letters: N batch, C image channels, K classes, H W image, D width, F channels of the features, Q queries, T_i cells of a
map, h w the finest map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.deformable_pixel_decoder import DecodedMaps, DeformablePixelDecoder
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.query_decoder import (
    MaskedLayer,
    MaskEmbedding,
    allowed_cells,
    exact_mask_logits,
    mask_logits,
    resized,
    sine_positions,
)
from segatlas.models.architecture import require_at_least
from segatlas.structures import Inputs, QueryLayer, QueryMasks, image_of

LEVELS = 3
"""Maps that masked queries look at, in all published networks."""

TINY: dict[str, Any] = {"queries": 6, "channels": 8, "mask_channels": 8, "heads": 2, "groups": 2, "hidden": 8}
"""Fields of a tiny network of this kind, for tests."""

TINY_MASKED: dict[str, Any] = {**TINY, "pixel_layers": 1, "pixel_hidden": 8, "points": 2, "layers": 3}
"""The same of one with masked attention."""


@dataclass(frozen=True, kw_only=True)
class QueryNetworkConfig:
    """Settings of such a network, besides its number of layers.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options; its last four maps are used.
    queries: how many objects and kinds of stuff there may be in an image, Q.
    channels: width of queries and maps, D.
    mask_channels: channels of the map that masks are made of, F.
    heads: attention heads, everywhere.
    groups: of all group norms.
    padding: images grow right and bottom to multiples of so many pixels.
    bgr: the encoder was trained on channels in the order blue, green, red, so the image's are turned round for it.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50")
    queries: int = 100
    channels: int = 256
    mask_channels: int = 256
    heads: int = 8
    groups: int = 32
    padding: int = 32
    bgr: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, queries=1, channels=4, mask_channels=1, heads=1)
        require_at_least(self, groups=1, padding=1)
        for name, parts in (("heads", self.heads), ("groups", self.groups)):
            if self.channels % parts:
                raise UsageError(f"{name}: got {parts}, expected a divisor of {self.channels} (channels)")
        if self.channels % 4:
            raise UsageError(f"channels: got {self.channels}, expected a multiple of 4")


@dataclass(frozen=True, kw_only=True)
class MaskedQueryConfig(QueryNetworkConfig):
    """Settings of one whose queries look where their masks were.

    pixel_layers: layers of the pixel decoder's transformer.
    pixel_hidden: width of their feed-forward parts.
    points: places that a head of the pixel decoder looks at in each map.
    layers: layers of queries.
    hidden: width of their feed-forward parts.
    """

    pixel_layers: int = 6
    pixel_hidden: int = 1024
    points: int = 4
    layers: int = 9
    hidden: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, pixel_layers=1, pixel_hidden=1, points=1, layers=1, hidden=1)


class QueryNetwork(nn.Module):
    """Encoder, what an architecture makes of its maps, classes and masks.

    Args:
        config: the network's.
        count: how many of the encoder's last maps are taken.
    """

    layers: nn.ModuleList

    def __init__(self, config: Any, count: int):
        super().__init__()
        self.config, self.count = config, count
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        if len(self.encoder.channels) < count:
            found = len(self.encoder.channels)
            raise UsageError(f"encoder: {config.encoder.name} gives {found} maps, expected {count} or more")

    def add_heads(self) -> None:
        """Make `norm`, `classifier` and `mask_embedding`, which all layers share."""
        width = self.config.channels
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, self.config.num_classes + 1)
        self.mask_embedding = MaskEmbedding(width, self.config.mask_channels)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides: what queries predict before each layer."""
        return tuple(f"layer_{index}" for index in range(len(self.layers)))

    @abstractmethod
    def decode(self, maps: Sequence[Tensor]) -> Sequence[QueryLayer]:
        """Map the encoder's last maps, finest first, to what queries predict at last, in training at every layer."""

    def forward(self, inputs: Tensor | Inputs) -> QueryMasks:
        """Map a normalised image (N, C, H, W) to classes and masks of queries, in training to those of all layers."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        found = self.decode(self.encoder(x)[-self.count :])
        aux = dict(zip(self.aux_names, found[:-1], strict=True)) if self.training else {}
        return QueryMasks(*found[-1], canvas=(x.shape[-2], x.shape[-1]), aux=aux)

    def predicted(self, x: Tensor, features: Tensor) -> QueryLayer:
        """Map queries (N, Q, D) and features (N, F, h, w) to classes and masks."""
        x = self.norm(x)
        return QueryLayer(self.classifier(x), exact_mask_logits(self.mask_embedding(x), features))


class MaskedQueryNetwork(QueryNetwork):
    """Encoder, pixel decoder of deformable attention, layers of masked attention.

    Where a query may look is needed at the size of a map, and interpolating is linear: in eval mode features are
    brought to that size once, a product with them is the interpolated mask, and masks of full size are made of the last
    layer alone.
    """

    def __init__(self, config: MaskedQueryConfig):
        super().__init__(config, LEVELS + 1)
        self.pixel_decoder = DeformablePixelDecoder(
            self.encoder.channels[-self.count :],
            config.channels,
            config.mask_channels,
            levels=LEVELS,
            layers=config.pixel_layers,
            hidden=config.pixel_hidden,
            heads=config.heads,
            points=config.points,
            groups=config.groups,
        )

    def add_layers(self, *, dropout: float = 0.0) -> None:
        """Make `query_positions`, `level_embedding`, `layers` and the heads."""
        config, width = self.config, self.config.channels
        self.query_positions = nn.Parameter(torch.randn(config.queries, width))
        self.level_embedding = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(
            MaskedLayer(width, heads=config.heads, hidden=config.hidden, dropout=dropout) for _ in range(config.layers)
        )
        self.add_heads()

    @abstractmethod
    def first_queries(self, features: Tensor) -> Tensor:
        """Return with what queries begin, (N, Q, D), for features (N, F, h, w)."""

    def decode(self, maps: Sequence[Tensor]) -> Sequence[QueryLayer]:
        """See `QueryNetwork`: before the first layer and after each, or after the last alone."""
        decoded: DecodedMaps = self.pixel_decoder(maps)
        features, grids = decoded.features, decoded.grids
        x = self.first_queries(features)
        values = [cells + level for cells, level in zip(decoded.cells, self.level_embedding, strict=True)]
        keys = [cells + sine_positions(grid, cells.shape[2], cells) for cells, grid in zip(values, grids, strict=True)]
        small = [] if self.training else [resized(features, grid) for grid in grids[: len(self.layers)]]
        found = []
        for index, layer in enumerate(self.layers):
            level = index % LEVELS
            if self.training:
                found.append(self.predicted(x, features))
                logits = resized(found[-1].mask_logits.detach(), grids[level])
            else:
                logits = mask_logits(self.mask_embedding(self.norm(x)), small[level])
            x = layer(x, self.query_positions, keys[level], values[level], allowed_cells(logits))
        return [*found, self.predicted(x, features)]
