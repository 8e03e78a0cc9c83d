"""FCN: fully convolutional networks, in the form that all later papers compare with.

Paper: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", https://arxiv.org/abs/1411.4038.

Idea: a classification network whose last layers are convolutions gives a map of scores instead of one label, for
images of any size. A few convolutions and a 1x1 classifier on the encoder's last map are the whole decoder.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the
encoder's last maps concatenated, D decoder width.

How ours differs: nothing in the numbers. The form is MMSegmentation's (encoder at stride 8, two 3x3 convolutions, their
result and the encoder's map concatenated through a third), of which torchvision's (`convs=1, concat_input=False`) and
the head of HRNet (`levels=4`, 1x1 convolutions; Sun et al. 2019, https://arxiv.org/abs/1904.04514) are settings. A 1x1
convolution of several upsampled maps is computed before the upsampling. The paper's own form on a VGG, with skips, is
`fcn_skips`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.before_upsampling import fuse_before_upsampling
from segatlas.layers.conv import ConvBNReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class FCNConfig(HeadConfig):
    """Settings of an FCN, besides those of `HeadConfig`.

    levels: how many of the encoder's last maps are upsampled to the finest of them and concatenated.
    convs: convolutions of the decoder.
    kernel_size: of these convolutions.
    dilation: of these convolutions, and of the auxiliary head's.
    concat_input: concatenate the encoder's map and their result through one more convolution.
    """

    levels: int = 1
    convs: int = 2
    kernel_size: int = 3
    dilation: int = 1
    concat_input: bool = True


class FCN(DenseNetwork):
    """Encoder, a few convolutions, 1x1 classifier: logits at the stride of the finest map used."""

    def __init__(self, config: FCNConfig):
        super().__init__(config)
        require_at_least(config, levels=1, dilation=1)
        self.levels = config.levels
        self.before_upsampling = config.kernel_size == 1 and not config.concat_input
        width, in_channels = config.channels, sum(self.encoder.channels[-config.levels :])
        inputs = (in_channels, *(width,) * (config.convs - 1))
        self.convs = nn.ModuleList(
            ConvBNReLU(channels, width, config.kernel_size, dilation=config.dilation) for channels in inputs
        )
        self.fuse = ConvBNReLU(in_channels + width, width, config.kernel_size) if config.concat_input else None
        self.aux_dilation = config.dilation
        self.add_classifier(config, width, self.convs, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        maps = features[-self.levels :]
        first, *others = self.convs
        if self.before_upsampling:
            x = self.first_before_upsampling(maps)
        else:
            wide = concatenated(maps, align_corners=self.align_corners)  # (N, E, h, w)
            x = first(wide)
        for conv in others:
            x = conv(x)
        return x if self.fuse is None else self.fuse(torch.cat([wide, x], dim=1))

    def first_before_upsampling(self, maps: list[Tensor]) -> Tensor:
        """Apply the first block, of 1x1, to the maps concatenated without building that map."""
        block = self.convs[0]
        kernels = block.get_parameter("conv.weight").flatten(1).split([x.shape[1] for x in maps], dim=1)
        x = fuse_before_upsampling(maps, kernels, align_corners=self.align_corners)
        return F.relu(block.get_submodule("bn")(x), inplace=True)


def concatenated(maps: list[Tensor], *, align_corners: bool) -> Tensor:
    """Upsample maps (N, C_i, h_i, w_i) to the size of the first and return them as one of all their channels."""
    finest, *coarser = maps
    size = finest.shape[-2:]
    upsampled = [F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners) for x in coarser]
    return torch.cat([finest, *upsampled], dim=1) if upsampled else finest


_HRNET = {"output_stride": None, "levels": 4, "convs": 1, "kernel_size": 1, "concat_input": False, "dropout": 0.0}

ARCHITECTURE = Architecture(
    name="fcn",
    title="FCN",
    paper="https://arxiv.org/abs/1411.4038",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FCNConfig,
    build=FCN,
    variants={
        "fcn_r50": {"encoder": "resnet50c"},
        "fcn_r101": {"encoder": "resnet101c"},
        "fcn_mobilenet_v2": {"encoder": "mobilenet_v2_320"},
        "fcn_hr18_small": {"encoder": "hrnet_w18_small", "channels": 270, **_HRNET},
        "fcn_hr18": {"encoder": "hrnet_w18", "channels": 270, **_HRNET},
        "fcn_hr48": {"encoder": "hrnet_w48", "channels": 720, **_HRNET},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
