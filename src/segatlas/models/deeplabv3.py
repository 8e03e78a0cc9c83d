"""DeepLabV3: atrous spatial pyramid pooling.

Paper: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation",
https://arxiv.org/abs/1706.05587.

Idea: convolutions of several dilations on the encoder's last map, and its average, see context at several scales
without losing resolution (ASPP).

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width.

How ours differs: nothing in the numbers. The default is MMSegmentation's form, which fuses the branches by a 3x3
convolution; torchvision and segmentation-models-pytorch do by 1x1 and add a 3x3 one (`fuse_kernel_size=1, convs=1`;
variant `deeplabv3_r34_smp`).
The pooled branch is constant over the image; its part of the fusing convolution is computed on one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.separable import SeparableConvBNReLU
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class DeepLabV3Config(HeadConfig, PresenceConfig):
    """Settings of a DeepLabV3, besides those of `HeadConfig` and `PresenceConfig`.

    rates: dilations of the ASPP's 3x3 convolutions; the paper's are these at stride 8, half of them at stride 16.
    separable: these are separable, without a norm between their halves.
    fuse_kernel_size: of the convolution that fuses the ASPP's branches.
    aspp_dropout: fraction of values dropped after it while training.
    convs: 3x3 convolutions after the ASPP.
    aux: also train an FCN head, named "fcn", on one of the encoder's maps.
    aux_level: which, counted from the last: 2 is the last but one.
    """

    rates: tuple[int, ...] = (12, 24, 36)
    separable: bool = False
    fuse_kernel_size: int = 3
    aspp_dropout: float = 0.0
    convs: int = 0
    aux_level: int = 2


class DeepLabV3(DenseNetwork):
    """Encoder, ASPP, 1x1 classifier: logits at the stride of the encoder's last map."""

    def __init__(self, config: DeepLabV3Config):
        super().__init__(config)
        in_channels, width = self.encoder.channels[-1], config.channels
        branches = [
            ConvBNReLU(in_channels, width, 1),
            *(
                SeparableConvBNReLU(in_channels, width, dilation=rate, depthwise_norm=False)
                if config.separable
                else ConvBNReLU(in_channels, width, dilation=rate)
                for rate in config.rates
            ),
        ]
        fuse = PooledFuse(len(branches) * width, [width], width, config.fuse_kernel_size)
        self.aspp = ASPP(branches, ConvBNReLU(in_channels, width, 1), fuse)
        self.aspp_dropout = nn.Dropout(config.aspp_dropout)
        self.convs = nn.Sequential(*(ConvBNReLU(width, width) for _ in range(config.convs)))
        self.aux_level = config.aux_level
        self.add_classifier(config, width, self.aspp, self.convs)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        x: Tensor = self.convs(self.aspp_dropout(self.aspp(features[-1])))
        return x


SMP: dict[str, Any] = {
    "output_stride": 8,
    "encoder_options": {"contract_dilation": False},
    "channels": 256,
    "fuse_kernel_size": 1,
    "convs": 1,
    "aspp_dropout": 0.5,
    "dropout": 0.0,
    "align_corners": True,
}
"""What differs in segmentation-models-pytorch."""

ARCHITECTURE = Architecture(
    name="deeplabv3",
    title="DeepLabV3",
    paper="https://arxiv.org/abs/1706.05587",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DeepLabV3Config,
    build=DeepLabV3,
    variants={
        "deeplabv3_r50": {"encoder": "resnet50c"},
        "deeplabv3_r101": {"encoder": "resnet101c"},
        "deeplabv3_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
        "deeplabv3_r34_smp": {"encoder": "resnet34", **SMP},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
