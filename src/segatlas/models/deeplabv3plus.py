"""DeepLabV3+: atrous spatial pyramid pooling, sharpened by an early map.

Paper: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
https://arxiv.org/abs/1802.02611.

Idea: convolutions of several dilations on the encoder's last map see context at several scales (ASPP); their result is
upsampled to stride 4 and refined together with the encoder's map there, which knows where edges are. All 3x3
convolutions of the decoder are separable.

Letters: N batch, C image channels, K classes, H W image, h w encoder's last map, E its channels, D decoder width,
L channels of the reduced early map.

How ours differs: nothing in the numbers. The default is MMSegmentation's form: batch norm and ReLU after each depthwise
convolution too, branches fused by a plain 3x3 convolution, two separable convolutions at stride 4. That of
segmentation-models-pytorch, which is nearer to the paper, is a matter of settings (variant `deeplabv3plus_r34_smp`).
The pooled branch of ASPP is constant over the image; its part of the fusing convolution is computed on one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.separable import SeparableConvBNReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class DeepLabV3PlusConfig(HeadConfig, PresenceConfig):
    """Settings of a DeepLabV3+, besides those of `HeadConfig` and `PresenceConfig`.

    rates: dilations of the ASPP's 3x3 convolutions; the paper's are these at stride 8, half of them at stride 16.
    separable: these are separable; those after the ASPP always are.
    fuse_kernel_size: of the convolution that fuses the ASPP's branches.
    fuse_convs: separable convolutions after it.
    aspp_dropout: fraction of values dropped after the ASPP while training.
    low_channels: channels of the early map after its 1x1 convolution, L.
    refine_convs: separable convolutions over early map and ASPP together.
    depthwise_norm: batch norm and ReLU also between the depthwise and pointwise halves of a separable convolution.
    """

    rates: tuple[int, ...] = (12, 24, 36)
    separable: bool = True
    fuse_kernel_size: int = 3
    fuse_convs: int = 0
    aspp_dropout: float = 0.0
    low_channels: int = 48
    refine_convs: int = 2
    depthwise_norm: bool = True


class DeepLabV3Plus(DenseNetwork):
    """Encoder, ASPP, refinement with the encoder's map at stride 4, 1x1 classifier: logits at stride 4."""

    def __init__(self, config: DeepLabV3PlusConfig):
        super().__init__(config)
        require_at_least(config, refine_convs=1)
        if 4 not in self.encoder.strides:
            raise UsageError(
                f"DeepLabV3+ needs an encoder with a map at stride 4, {config.encoder} has {self.encoder.strides}"
            )
        self.early = self.encoder.strides.index(4)
        width = config.channels
        self.aspp = aspp_of(config, self.encoder.channels[-1])
        self.aspp_dropout = nn.Dropout(config.aspp_dropout)
        self.fuse_convs = separable_convolutions(config, width, config.fuse_convs)
        self.low = ConvBNReLU(self.encoder.channels[self.early], config.low_channels, 1)
        self.refine = separable_convolutions(config, width + config.low_channels, config.refine_convs)
        self.add_classifier(config, width, self.aspp, self.fuse_convs, self.low, self.refine)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/4, W/4)."""
        low = self.low(features[self.early])  # (N, L, H/4, W/4)
        x = self.fuse_convs(self.aspp_dropout(self.aspp(features[-1])))  # (N, D, h, w)
        x = F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        refined: Tensor = self.refine(torch.cat([x, low], dim=1))
        return refined


def aspp_of(config: DeepLabV3PlusConfig, in_channels: int) -> ASPP:
    """Return the ASPP over a map (N, E, h, w): a 1x1 branch, a 3x3 one for each rate, and the pooled one."""
    width = config.channels
    branches = [
        ConvBNReLU(in_channels, width, 1),
        *(
            SeparableConvBNReLU(in_channels, width, dilation=rate, depthwise_norm=config.depthwise_norm)
            if config.separable
            else ConvBNReLU(in_channels, width, dilation=rate)
            for rate in config.rates
        ),
    ]
    fuse = PooledFuse(len(branches) * width, [width], width, config.fuse_kernel_size)
    return ASPP(branches, ConvBNReLU(in_channels, width, 1), fuse)


def separable_convolutions(config: DeepLabV3PlusConfig, in_channels: int, count: int) -> nn.Sequential:
    """Return `count` separable convolutions, from (N, in_channels, h, w) to (N, D, h, w)."""
    inputs = (in_channels, *(config.channels,) * (count - 1))[:count]
    return nn.Sequential(
        *(SeparableConvBNReLU(c, config.channels, depthwise_norm=config.depthwise_norm) for c in inputs)
    )


SMP: dict[str, Any] = {
    "output_stride": 16,
    "encoder_options": {"contract_dilation": False},
    "channels": 256,
    "fuse_kernel_size": 1,
    "fuse_convs": 1,
    "aspp_dropout": 0.5,
    "refine_convs": 1,
    "depthwise_norm": False,
    "dropout": 0.0,
    "align_corners": True,
}
"""What differs in segmentation-models-pytorch."""

ARCHITECTURE = Architecture(
    name="deeplabv3plus",
    title="DeepLabV3+",
    paper="https://arxiv.org/abs/1802.02611",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DeepLabV3PlusConfig,
    build=DeepLabV3Plus,
    variants={
        "deeplabv3plus_r50": {"encoder": "resnet50c"},
        "deeplabv3plus_r101": {"encoder": "resnet101c"},
        "deeplabv3plus_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
        "deeplabv3plus_r34_smp": {"encoder": "resnet34", **SMP},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "low_channels": 4, "aux": True},
)
