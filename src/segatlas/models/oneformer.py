"""OneFormer: one network for three tasks, which is told in words what to look for.

Paper: Jain et al. 2022, "OneFormer: One Transformer to Rule Universal Image Segmentation",
https://arxiv.org/abs/2211.06220.

Idea: Mask2Former's decoders, and a token that says "the task is panoptic" (or instance, or semantic). It is the first
state of all queries, which then look at the whole image, before masked attention begins, and it goes with them as the
last query. So one set of weights gives things alone, or classes, or both, as it is asked.

    image (N, C, H, W) -> encoder -> pixel decoder: features (N, F, h, w) at stride 4, cells (N, T_i, D) of three maps
    numbers of the words (77) -> task token (1, D) -> queries (N, Q - 1, D) by attention to the features; and the token
    queries (N, Q, D) -> layers, each on the next of the three maps -> classes (N, Q, K + 1), masks (N, Q, h, w)

Letters: N batch, C image channels, K classes, H W image, D width, F channels of the features, Q queries, T_i cells of a
map, h w the finest map.

How ours differs: nothing in the numbers of a prediction, which are the authors' and Hugging Face's. The words are
constants, those of the card's task. The authors' training besides encodes a text of what is in an image, to which
queries are compared, and draws a task for each image; ours trains the queries for one task, without texts. As in
Mask2Former, features are brought to the size of a map, not masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.deformable_pixel_decoder import DecodedMaps, DeformablePixelDecoder
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.query_decoder import (
    MaskedLayer,
    MaskEmbedding,
    PlainLayer,
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

WORDS = 77
"""Numbers that stand for the words of a task; 0 behind the last one."""

_BEGIN, _END, _THE_TASK_IS = 49406, 49407, (518, 10549, 533)
TASK_WORDS = {
    "panoptic": (_BEGIN, *_THE_TASK_IS, 1072, 24755, _END),
    "instance": (_BEGIN, *_THE_TASK_IS, 34572, _END),
    "semantic": (_BEGIN, *_THE_TASK_IS, 29119, 1550, _END),
}
"""Task -> "the task is ..." as the pieces of words of CLIP's vocabulary, by number."""


@dataclass(frozen=True, kw_only=True)
class OneFormerConfig:
    """Settings of a OneFormer.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder and its options; its last four maps are used.
    asked_for: what the network is told to give.
    queries: how many objects and kinds of stuff there may be in an image, and the task token, Q.
    channels: width of queries and maps, D.
    mask_channels: channels of the map that masks are made of, F.
    heads: attention heads, in all decoders.
    pixel_layers: layers of the pixel decoder's transformer.
    pixel_hidden: width of their feed-forward parts.
    points: places that a head of the pixel decoder looks at in each map.
    groups: of the pixel decoder's group norms.
    first_layers: layers in which queries look at all of the features.
    layers: layers of masked attention behind them.
    hidden: width of the feed-forward parts of both.
    dropout: fraction dropped in the first layers while training.
    padding: images grow right and bottom to multiples of so many pixels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="swin_tiny")
    asked_for: Literal["panoptic", "instance", "semantic"] = "panoptic"
    queries: int = 150
    channels: int = 256
    mask_channels: int = 256
    heads: int = 8
    pixel_layers: int = 6
    pixel_hidden: int = 1024
    points: int = 4
    groups: int = 32
    first_layers: int = 2
    layers: int = 9
    hidden: int = 2048
    dropout: float = 0.1
    padding: int = 32

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, queries=2, channels=4, mask_channels=1, heads=1)
        require_at_least(self, pixel_layers=1, pixel_hidden=1, points=1, groups=1, layers=1, hidden=1, padding=1)
        require_at_least(self, first_layers=0, dropout=0)
        for name, parts in (("heads", self.heads), ("groups", self.groups)):
            if self.channels % parts:
                raise UsageError(f"{name}: got {parts}, expected a divisor of {self.channels} (channels)")
        if self.channels % 4 or self.mask_channels % 4:
            found = f"{self.channels} and {self.mask_channels}"
            raise UsageError(f"channels, mask_channels: got {found}, expected multiples of 4")


class FirstLook(nn.Module):
    """Makes queries of the task token: they ask where in the image there is something.

    What they take over are positions of cells, by the likeness of the features there.
    """

    def __init__(self, config: OneFormerConfig):
        super().__init__()
        self.project = nn.Conv2d(config.mask_channels, config.channels, kernel_size=1)
        heads, hidden, dropout = config.heads, config.hidden, config.dropout
        self.layers = nn.ModuleList(
            PlainLayer(config.channels, heads=heads, hidden=hidden, dropout=dropout) for _ in range(config.first_layers)
        )
        self.norm = nn.LayerNorm(config.channels)

    def forward(self, token: Tensor, positions: Tensor, features: Tensor) -> Tensor:
        """Map the task token (1, D), positions of queries (Q - 1, D) and features (N, F, h, w) to (N, Q - 1, D)."""
        size = (features.shape[-2], features.shape[-1])
        places = sine_positions(size, positions.shape[1], features)[None].expand(features.shape[0], -1, -1)
        key = places + self.project(features).flatten(2).transpose(1, 2)
        x = token.expand(features.shape[0], len(positions), -1)
        for layer in self.layers:
            x = layer(x, positions, key, places)
        out: Tensor = self.norm(x)
        return out


class OneFormer(nn.Module):
    """Encoder, pixel decoder, task token, queries, layers of masked attention: classes and masks.

    Parameters: `encoder`; `pixel_decoder`; `task_embedding`, `first_look`; `query_positions` (Q, D), `level_embedding`
    (3, D); `layers`; `norm`, `classifier`, `mask_embedding`, which all layers share.
    """

    def __init__(self, config: OneFormerConfig):
        super().__init__()
        self.config = config
        self.words: Sequence[int] = TASK_WORDS[config.asked_for]
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
        self.task_embedding = nn.Sequential(nn.Linear(WORDS, width), nn.ReLU(), nn.Linear(width, width))
        self.first_look = FirstLook(config)
        self.query_positions = nn.Parameter(torch.randn(config.queries, width))
        self.level_embedding = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(
            MaskedLayer(width, heads=config.heads, hidden=config.hidden) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, config.num_classes + 1)
        self.mask_embedding = MaskEmbedding(width, config.mask_channels)
        for part in (self.layers, self.first_look.layers, self.task_embedding):
            start_matrices(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides: what queries predict before each layer."""
        return tuple(f"layer_{index}" for index in range(len(self.layers)))

    def forward(self, inputs: Tensor | Inputs) -> QueryMasks:
        """Map a normalised image (N, C, H, W) to classes and masks of queries, in training to those of all layers."""
        x = pad_to_multiple(image_of(inputs), self.config.padding)
        found = self.decode(self.pixel_decoder(self.encoder(x)[-LEVELS - 1 :]))
        aux = dict(zip(self.aux_names, found[:-1], strict=True)) if self.training else {}
        return QueryMasks(*found[-1], canvas=(x.shape[-2], x.shape[-1]), aux=aux)

    def task_token(self) -> Tensor:
        """Return what stands for the task (1, D): made of the numbers of its words, too large for half precision."""
        weight = self.task_embedding.get_parameter("0.weight")
        words = weight.new_tensor([*self.words, *[0] * (WORDS - len(self.words))])[None]
        device = "cpu" if weight.is_meta else weight.device.type  # autocast does not know "meta"
        with torch.autocast(device, enabled=False):
            token: Tensor = self.norm(self.task_embedding(words))
        return token

    def decode(self, maps: DecodedMaps) -> list[QueryLayer]:
        """Map what the pixel decoder gives to what queries predict: before the first layer and after each, or last."""
        token = self.task_token()
        x = self.first_look(token, self.query_positions[:-1], maps.features)
        x = torch.cat([x, token.to(x.dtype).expand(x.shape[0], 1, -1)], dim=1)  # (N, Q, D)
        values = [cells + level for cells, level in zip(maps.cells, self.level_embedding, strict=True)]
        keys = [x + sine_positions(grid, x.shape[2], x) for x, grid in zip(values, maps.grids, strict=True)]
        small = [] if self.training else [resized(maps.features, grid) for grid in maps.grids[: len(self.layers)]]
        found = []
        for index, layer in enumerate(self.layers):
            level = index % LEVELS
            if self.training:
                found.append(self.predicted(x, maps.features))
                logits = resized(found[-1].mask_logits.detach(), maps.grids[level])
            else:
                logits = mask_logits(self.mask_embedding(self.norm(x)), small[level])
            x = layer(x, self.query_positions, keys[level], values[level], allowed_cells(logits))
        return [*found, self.predicted(x, maps.features)]

    def predicted(self, x: Tensor, features: Tensor) -> QueryLayer:
        """Map queries (N, Q, D) and features (N, F, h, w) to classes and masks."""
        x = self.norm(x)
        return QueryLayer(self.classifier(x), exact_mask_logits(self.mask_embedding(x), features))


ARCHITECTURE = Architecture(
    name="oneformer",
    title="OneFormer",
    paper="https://arxiv.org/abs/2211.06220",
    tasks=("panoptic", "instance", "semantic"),
    output=QueryMasks,
    config=OneFormerConfig,
    build=OneFormer,
    needs=Needs(targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget")),
    variants={
        "oneformer_swin_t": {"encoder": "swin_tiny", "encoder_options": {"drop_path": 0.3}},
        "oneformer_swin_l": {
            "encoder": "swin_large",
            "encoder_options": {"window": 12, "drop_path": 0.3},
            "queries": 250,
        },
    },
    tiny={
        "encoder": {"name": "swin_w8", "drop_path": 0.0},
        "queries": 6,
        "channels": 8,
        "mask_channels": 8,
        "heads": 2,
        "pixel_layers": 1,
        "pixel_hidden": 8,
        "points": 2,
        "groups": 2,
        "first_layers": 1,
        "layers": 3,
        "hidden": 8,
    },
)
