"""Semantic FPN: the semantic branch of panoptic feature pyramid networks.

Paper: Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", https://arxiv.org/abs/1901.02446.

Idea: a feature pyramid gives every level of the encoder the meaning of the coarser ones. Each level is brought to the
finest one's size by a few convolutions and upsamplings, and their sum is classified.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, P pyramid width, D decoder
width.

How ours differs: nothing in the numbers, which are MMSegmentation's (batch norm in place of the paper's group norm).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from segatlas.encoders.spec import EncoderSpec
from segatlas.layers.fpn import FPN, FPNHead
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig(HeadConfig):
    """Settings of a Semantic FPN, besides those of `HeadConfig`.

    levels: how many of the encoder's last maps the pyramid takes.
    neck_channels: pyramid width, P.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    neck_channels: int = 256
    channels: int = 128


class SemanticFPN(DenseNetwork):
    """Encoder, feature pyramid, sum of its levels, 1x1 classifier: logits at the stride of the finest level."""

    def __init__(self, config: SemanticFPNConfig):
        super().__init__(config)
        require_at_least(config, levels=1)
        self.levels = config.levels
        self.neck = FPN(self.encoder.channels[-config.levels :], config.neck_channels)
        self.head = FPNHead(
            config.neck_channels,
            config.channels,
            strides=self.encoder.strides[-config.levels :],
            align_corners=config.align_corners,
        )
        self.add_classifier(config, config.channels, self.neck, self.head)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        pyramid = self.neck(features[-self.levels :])  # (N, P, h_i, w_i) each
        out: Tensor = self.head(pyramid)
        return out


ARCHITECTURE = Architecture(
    name="semantic_fpn",
    title="Semantic FPN",
    paper="https://arxiv.org/abs/1901.02446",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SemanticFPNConfig,
    build=SemanticFPN,
    variants={
        "semantic_fpn_r50": {"encoder": "resnet50c"},
        "semantic_fpn_r101": {"encoder": "resnet101c"},
        **{
            f"semantic_fpn_poolformer_{size}": {"encoder": f"poolformer_{size}"}
            for size in ("s12", "s24", "s36", "m36", "m48")
        },
        "semantic_fpn_twins_pcpvt_s": {"encoder": "twins_pcpvt_small"},
        "semantic_fpn_twins_pcpvt_b": {"encoder": "twins_pcpvt_base"},
        "semantic_fpn_twins_pcpvt_l": {"encoder": "twins_pcpvt_large"},
        "semantic_fpn_twins_svt_s": {"encoder": "twins_svt_small"},
        "semantic_fpn_twins_svt_b": {"encoder": "twins_svt_base"},
        "semantic_fpn_twins_svt_l": {"encoder": "twins_svt_large", "encoder_options": {"drop_path": 0.3}},
    },
    tiny={"encoder": "resnet18_w8", "neck_channels": 8, "channels": 8, "aux": True},
)
