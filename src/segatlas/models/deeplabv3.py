"""DeepLabV3: atrous spatial pyramid pooling.

Paper: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation",
https://arxiv.org/abs/1706.05587.

Idea: convolutions of several dilations on the encoder's last map, and its average, see context at several scales
without losing resolution (ASPP).

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width.

How ours differs: nothing in the numbers. The default is MMSegmentation's form, which fuses the branches by a 3x3
convolution; torchvision and segmentation-models-pytorch do by 1x1 and add a 3x3 one (`fuse_kernel_size=1, convs=1`).
The pooled branch is constant over the image; its part of the fusing convolution is computed on one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.encoders.contract import Encoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.models.architecture import Architecture
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config:
    """Settings of a DeepLabV3.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    channels: decoder width, D.
    rates: dilations of the ASPP's 3x3 convolutions; the paper's are these at stride 8, half of them at stride 16.
    fuse_kernel_size: of the convolution that fuses the ASPP's branches.
    aspp_dropout: fraction of values dropped after it while training.
    convs: 3x3 convolutions after the ASPP.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how logits are upsampled.
    aux: also train an FCN head, named "fcn", on one of the encoder's maps.
    aux_level: which, counted from the last: 2 is the last but one.
    aux_channels: its width; None = a quarter of its input's channels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c", output_stride=8)
    channels: int = 512
    rates: tuple[int, ...] = (12, 24, 36)
    fuse_kernel_size: int = 3
    aspp_dropout: float = 0.0
    convs: int = 0
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_level: int = 2
    aux_channels: int | None = None


class DeepLabV3(nn.Module):
    """Encoder, ASPP, 1x1 classifier: logits at the stride of the encoder's last map."""

    def __init__(self, config: DeepLabV3Config, encoder: Encoder):
        super().__init__()
        self.align_corners = config.align_corners
        self.encoder = encoder
        in_channels, width = encoder.channels[-1], config.channels
        branches = [
            ConvBNReLU(in_channels, width, 1),
            *(ConvBNReLU(in_channels, width, dilation=rate) for rate in config.rates),
        ]
        fuse = PooledFuse(len(branches) * width, [width], width, config.fuse_kernel_size)
        self.aspp = ASPP(branches, ConvBNReLU(in_channels, width, 1), fuse)
        self.aspp_dropout = nn.Dropout(config.aspp_dropout)
        self.convs = nn.Sequential(*(ConvBNReLU(width, width) for _ in range(config.convs)))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, config.num_classes, kernel_size=1)
        self.aux_level, width = config.aux_level, encoder.channels[-config.aux_level]
        self.aux_head = FCNHead(width, config.num_classes, channels=config.aux_channels) if config.aux else None
        for part in (self.aspp, self.convs, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        x: Tensor = self.convs(self.aspp_dropout(self.aspp(features[-1])))
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {}
        if self.aux_head is not None and self.training:
            aux["fcn"] = self.aux_head(features[-self.aux_level])
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def build(config: DeepLabV3Config) -> DeepLabV3:
    """Make the network."""
    return DeepLabV3(
        config,
        create_encoder(config.encoder, in_channels=config.in_channels),
    )


ARCHITECTURE = Architecture(
    name="deeplabv3",
    title="DeepLabV3",
    paper="https://arxiv.org/abs/1706.05587",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DeepLabV3Config,
    build=build,
    variants={
        "deeplabv3_r50": {"encoder": "resnet50c"},
        "deeplabv3_r101": {"encoder": "resnet101c"},
        "deeplabv3_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
