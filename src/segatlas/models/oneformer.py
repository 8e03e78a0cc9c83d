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

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.query_decoder import PlainLayer, sine_positions, start_matrices
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.models.query_network import TINY_MASKED, MaskedQueryConfig, MaskedQueryNetwork
from segatlas.ops.full_precision import in_full_precision
from segatlas.structures import QueryMasks

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
class OneFormerConfig(MaskedQueryConfig):
    """Settings of a OneFormer; of its queries the last one is the task token.

    asked_for: what the network is told to give.
    first_layers: layers in which queries look at all of the features, before those of masked attention.
    dropout: fraction dropped in the first layers while training.
    """

    encoder: EncoderSpec = EncoderSpec(name="swin_tiny")
    queries: int = 150
    asked_for: Literal["panoptic", "instance", "semantic"] = "panoptic"
    first_layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_at_least(self, queries=2, first_layers=0, dropout=0)
        if self.channels % 4 or self.mask_channels % 4:
            found = f"{self.channels} and {self.mask_channels}"
            raise UsageError(f"channels, mask_channels: got {found}, expected multiples of 4")
        super().__post_init__()


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


class OneFormer(MaskedQueryNetwork):
    """Encoder, pixel decoder, task token, queries, layers of masked attention: classes and masks.

    Parameters: `encoder`; `pixel_decoder`; `task_embedding`, `first_look`; `query_positions` (Q, D), `level_embedding`
    (3, D); `layers`; `norm`, `classifier`, `mask_embedding`, which all layers share.
    """

    def __init__(self, config: OneFormerConfig):
        super().__init__(config)
        self.words: Sequence[int] = TASK_WORDS[config.asked_for]
        width = config.channels
        self.task_embedding = nn.Sequential(nn.Linear(WORDS, width), nn.ReLU(), nn.Linear(width, width))
        self.first_look = FirstLook(config)
        self.add_layers()
        for part in (self.layers, self.first_look.layers, self.task_embedding):
            start_matrices(part)

    def task_token(self) -> Tensor:
        """Return what stands for the task (1, D): made of the numbers of its words, too large for half precision."""
        weight = self.task_embedding.get_parameter("0.weight")
        words = weight.new_tensor([*self.words, *[0] * (WORDS - len(self.words))])[None]
        with in_full_precision(weight):
            token: Tensor = self.norm(self.task_embedding(words))
        return token

    def first_queries(self, features: Tensor) -> Tensor:
        """Return what queries made of the task token are after their look at the features, and the token: (N, Q, D)."""
        token = self.task_token()
        x = self.first_look(token, self.query_positions[:-1], features)
        return torch.cat([x, token.to(x.dtype).expand(x.shape[0], 1, -1)], dim=1)


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
    tiny={"encoder": {"name": "swin_w8", "drop_path": 0.0}, "first_layers": 1, **TINY_MASKED},
)
