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

from torch import Tensor, nn

from segatlas.encoders.contract import Encoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.fpn import FPN, FPNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig:
    """Settings of a Semantic FPN.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    levels: how many of the encoder's last maps the pyramid takes.
    neck_channels: pyramid width, P.
    channels: decoder width, D.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    aux_channels: its width; None = a quarter of its input's channels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    neck_channels: int = 256
    channels: int = 128
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: int | None = None


class SemanticFPN(nn.Module):
    """Encoder, feature pyramid, sum of its levels, 1x1 classifier: logits at the stride of the finest level."""

    def __init__(self, config: SemanticFPNConfig, encoder: Encoder):
        super().__init__()
        require_at_least(config, levels=1)
        self.levels, self.align_corners = config.levels, config.align_corners
        self.encoder = encoder
        self.neck = FPN(encoder.channels[-config.levels :], config.neck_channels)
        self.head = FPNHead(
            config.neck_channels,
            config.channels,
            strides=encoder.strides[-config.levels :],
            align_corners=config.align_corners,
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        aux = FCNHead(encoder.channels[-2], config.num_classes, channels=config.aux_channels) if config.aux else None
        self.aux_head = aux
        for part in (self.neck, self.head, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        pyramid = self.neck(features[-self.levels :])  # (N, P, h_i, w_i) each
        out: Tensor = self.head(pyramid)
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {"fcn": self.aux_head(features[-2])} if self.aux_head is not None and self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def build(config: SemanticFPNConfig) -> SemanticFPN:
    """Make the network."""
    return SemanticFPN(
        config,
        create_encoder(config.encoder, in_channels=config.in_channels),
    )


ARCHITECTURE = Architecture(
    name="semantic_fpn",
    title="Semantic FPN",
    paper="https://arxiv.org/abs/1901.02446",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SemanticFPNConfig,
    build=build,
    variants={"semantic_fpn_r50": {"encoder": "resnet50c"}, "semantic_fpn_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "neck_channels": 8, "channels": 8, "aux": True},
)
