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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.layers.query_decoder import start_matrices
from segatlas.models.architecture import Architecture
from segatlas.models.needs import Needs
from segatlas.models.query_network import TINY_MASKED, MaskedQueryConfig, MaskedQueryNetwork
from segatlas.structures import QueryMasks


@dataclass(frozen=True, kw_only=True)
class Mask2FormerConfig(MaskedQueryConfig):
    """Settings of a Mask2Former.

    dropout: fraction dropped in the layers of queries while training.
    """

    dropout: float = 0.0


class Mask2Former(MaskedQueryNetwork):
    """Encoder, pixel decoder, layers of queries: classes and masks.

    Parameters: `encoder`; `pixel_decoder`; `queries`, `query_positions` (Q, D), `level_embedding` (3, D); `layers`;
    `norm`, `classifier`, `mask_embedding`, which all layers share.
    """

    def __init__(self, config: Mask2FormerConfig):
        super().__init__(config)
        self.queries = nn.Parameter(torch.randn(config.queries, config.channels))
        self.add_layers(dropout=config.dropout)
        start_matrices(self.layers)

    def first_queries(self, features: Tensor) -> Tensor:
        """Return what was learned of each query, (N, Q, D)."""
        return self.queries.expand(features.shape[0], -1, -1)


ARCHITECTURE = Architecture(
    name="mask2former",
    title="Mask2Former",
    paper="https://arxiv.org/abs/2112.01527",
    tasks=("panoptic", "instance", "semantic"),
    output=QueryMasks,
    config=Mask2FormerConfig,
    build=Mask2Former,
    needs=Needs(
        targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget"),
        losses=("query_points", "query_maps"),
        further_losses=("query_boxes",),
    ),
    variants={
        "mask2former_r50": {"encoder": "resnet50"},
        "mask2former_r101": {"encoder": "resnet101"},
        "mask2former_swin_t": {"encoder": "swin_tiny"},
        "mask2former_swin_s": {"encoder": "swin_small"},
        "mask2former_swin_b": {"encoder": "swin_base", "encoder_options": {"window": 12}},
        "mask2former_swin_l": {"encoder": "swin_large", "encoder_options": {"window": 12}, "queries": 200},
    },
    tiny={"encoder": "resnet18_w8", **TINY_MASKED},
)
