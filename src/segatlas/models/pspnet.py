"""PSPNet: the pyramid scene parsing network.

Paper: Zhao et al. 2017, "Pyramid Scene Parsing Network", https://arxiv.org/abs/1612.01105.

Idea: what a pixel shows depends on the scene around it. So averages of the encoder's last map over grids of 1x1, 2x2,
3x3 and 6x6 cells are put beside that map before it is classified.

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width.

How ours differs: nothing in the numbers. The form is MMSegmentation's (each pooled map has D channels, whatever their
number; encoder at stride 8). The pooled maps are never upsampled: their half of the fusing convolution is computed on
the cells, which saves a fifth of all the network's multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.encoders.contract import Encoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class PSPNetConfig:
    """Settings of a PSPNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    channels: decoder width, D.
    pool_scales: cells per side of each grid that is averaged over.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    aux_channels: its width; None = a quarter of its input's channels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c", output_stride=8)
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: int | None = None


class PSPNet(nn.Module):
    """Encoder, pyramid pooling, 1x1 classifier: logits at the stride of the encoder's last map."""

    def __init__(self, config: PSPNetConfig, encoder: Encoder):
        super().__init__()
        self.align_corners = config.align_corners
        self.encoder = encoder
        self.ppm = PPM(
            encoder.channels[-1], config.channels, scales=config.pool_scales, align_corners=config.align_corners
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        aux = FCNHead(encoder.channels[-2], config.num_classes, channels=config.aux_channels) if config.aux else None
        self.aux_head = aux
        for part in (self.ppm, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        pooled_and_fused: Tensor = self.ppm(features[-1])
        return pooled_and_fused

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {"fcn": self.aux_head(features[-2])} if self.aux_head is not None and self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def build(config: PSPNetConfig) -> PSPNet:
    """Make the network."""
    return PSPNet(
        config,
        create_encoder(config.encoder, in_channels=config.in_channels),
    )


ARCHITECTURE = Architecture(
    name="pspnet",
    title="PSPNet",
    paper="https://arxiv.org/abs/1612.01105",
    tasks=("semantic",),
    output=SemanticLogits,
    config=PSPNetConfig,
    build=build,
    variants={
        "pspnet_r50": {"encoder": "resnet50c"},
        "pspnet_r101": {"encoder": "resnet101c"},
        "pspnet_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
