"""Mask2Former: queries that look only where their own mask was before, and give a class and a mask each.

Paper: Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation",
https://arxiv.org/abs/2112.01527.

Idea: a fixed number of learned queries each stand for one object, or one kind of stuff, or nothing. Layer after layer
they attend to the maps of a pixel decoder, from the coarsest to the finest and around again, but only to the cells that
the mask which they gave last covers. The same network does all three tasks; only its truth differs.

    image (N, C, H, W) -> encoder -> four maps, strides 4 to 32
    maps -> pixel decoder: features (N, F, h, w) at stride 4, and cells (N, T_i, D) at strides 32, 16, 8
    queries (N, Q, D) -> layers, each on the next of the three maps -> classes (N, Q, K + 1), masks (N, Q, h, w)

Letters: N batch, C image channels, K classes, H W image, D width, F channels of the features, Q queries, T_i cells of a
map, h w the finest map.

How ours differs: nothing in the numbers, which are the authors', MMDetection's and Hugging Face's. Where a query may
look is needed at the size of a map, and interpolating is linear: features are brought to that size once, and a product
with them is the interpolated mask. So in eval mode masks of full size are made of the last layer alone. What is added
up in another order may in float32 move a cell that lies on the border of a mask across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    start_matrices,
)
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.structures import Inputs, QueryLayer, QueryMasks, image_of

LEVELS = 3
"""Maps that queries look at, in all published networks."""


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig:
    """Settings of a Mask2Former.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options; its last four maps are used.
    queries: how many objects and kinds of stuff there may be in an image, Q.
    channels: width of queries and maps, D.
    mask_channels: channels of the map that masks are made of, F.
    heads: attention heads, in both decoders.
    pixel_layers: layers of the pixel decoder's transformer.
    pixel_hidden: width of their feed-forward parts.
    points: places that a head of the pixel decoder looks at in each map.
    groups: of the pixel decoder's group norms.
    layers: layers of queries.
    hidden: width of their feed-forward parts.
    dropout: fraction dropped in them while training.
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
    pixel_layers: int = 6
    pixel_hidden: int = 1024
    points: int = 4
    groups: int = 32
    layers: int = 9
    hidden: int = 2048
    dropout: float = 0.0
    padding: int = 32
    bgr: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, queries=1, channels=4, mask_channels=1, heads=1)
        require_at_least(self, pixel_layers=1, pixel_hidden=1, points=1, groups=1, layers=1, hidden=1, padding=1)
        for name, parts in (("heads", self.heads), ("groups", self.groups)):
            if self.channels % parts:
                raise UsageError(f"{name}: got {parts}, expected a divisor of {self.channels} (channels)")
        if self.channels % 4:
            raise UsageError(f"channels: got {self.channels}, expected a multiple of 4")


class Mask2Former(nn.Module):
    """Encoder, pixel decoder, layers of queries: classes and masks.

    Parameters: `encoder`; `pixel_decoder`; `queries`, `query_positions` (Q, D), `level_embedding` (3, D); `layers`;
    `norm`, `classifier`, `mask_embedding`, which all layers share.
    """

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        if len(self.encoder.channels) <= LEVELS:
            found = len(self.encoder.channels)
            raise UsageError(f"encoder: {config.encoder.name} gives {found} maps, expected {LEVELS + 1} or more")
        width = config.channels
        self.pixel_decoder = DeformablePixelDecoder(
            self.encoder.channels[-LEVELS - 1 :],
            width,
            config.mask_channels,
            levels=LEVELS,
            layers=config.pixel_layers,
            hidden=config.pixel_hidden,
            heads=config.heads,
            points=config.points,
            groups=config.groups,
        )
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        self.query_positions = nn.Parameter(torch.randn(config.queries, width))
        self.level_embedding = nn.Parameter(torch.randn(LEVELS, width))
        heads, hidden, dropout = config.heads, config.hidden, config.dropout
        self.layers = nn.ModuleList(
            MaskedLayer(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, config.num_classes + 1)
        self.mask_embedding = MaskEmbedding(width, config.mask_channels)
        start_matrices(self.layers)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides: what queries predict before each layer."""
        return tuple(f"layer_{index}" for index in range(len(self.layers)))

    def forward(self, inputs: Tensor | Inputs) -> QueryMasks:
        """Map a normalised image (N, C, H, W) to classes and masks of queries, in training to those of all layers."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.config.padding)
        found = self.decode(self.pixel_decoder(self.encoder(x)[-LEVELS - 1 :]))
        aux = dict(zip(self.aux_names, found[:-1], strict=True)) if self.training else {}
        return QueryMasks(*found[-1], canvas=(x.shape[-2], x.shape[-1]), aux=aux)

    def decode(self, maps: DecodedMaps) -> Sequence[QueryLayer]:
        """Map what the pixel decoder gives to what queries predict: before the first layer and after each, or last."""
        values = [cells + level for cells, level in zip(maps.cells, self.level_embedding, strict=True)]
        keys = [x + sine_positions(grid, x.shape[2], x) for x, grid in zip(values, maps.grids, strict=True)]
        x = self.queries.expand(maps.features.shape[0], -1, -1)
        found = []
        seen: list[Tensor | None] = [None] * LEVELS  # features at the size of each map
        for index, layer in enumerate(self.layers):
            level = index % LEVELS
            if self.training:
                found.append(self.predicted(x, maps.features))
                logits = resized(found[-1].mask_logits.detach(), maps.grids[level])
            else:
                small = seen[level]
                seen[level] = small = resized(maps.features, maps.grids[level]) if small is None else small
                logits = mask_logits(self.mask_embedding(self.norm(x)), small)
            x = layer(x, self.query_positions, keys[level], values[level], allowed_cells(logits))
        return [*found, self.predicted(x, maps.features)]

    def predicted(self, x: Tensor, features: Tensor) -> QueryLayer:
        """Map queries (N, Q, D) and features (N, F, h, w) to classes and masks."""
        x = self.norm(x)
        return QueryLayer(self.classifier(x), exact_mask_logits(self.mask_embedding(x), features))


ARCHITECTURE = Architecture(
    name="mask2former",
    title="Mask2Former",
    paper="https://arxiv.org/abs/2112.01527",
    tasks=("panoptic", "instance", "semantic"),
    output=QueryMasks,
    config=Mask2FormerConfig,
    build=Mask2Former,
    needs=Needs(targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget"), losses=("query_points", "query_maps")),
    variants={
        "mask2former_r50": {"encoder": "resnet50"},
        "mask2former_r101": {"encoder": "resnet101"},
        "mask2former_swin_t": {"encoder": "swin_tiny"},
        "mask2former_swin_s": {"encoder": "swin_small"},
        "mask2former_swin_b": {"encoder": "swin_base", "encoder_options": {"window": 12}},
        "mask2former_swin_l": {"encoder": "swin_large", "encoder_options": {"window": 12}, "queries": 200},
    },
    tiny={
        "encoder": "resnet18_w8",
        "queries": 6,
        "channels": 8,
        "mask_channels": 8,
        "heads": 2,
        "pixel_layers": 1,
        "pixel_hidden": 8,
        "points": 2,
        "groups": 2,
        "layers": 3,
        "hidden": 8,
    },
)
