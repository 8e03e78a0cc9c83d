"""ICNet: the deep network sees the image at a quarter of its size, the finer branches only correct it.

Paper: Zhao et al. 2018, "ICNet for Real-Time Semantic Segmentation on High-Resolution Images",
https://arxiv.org/abs/1704.08545.

Idea: most of a network's time goes to resolution. So the first half of an encoder sees the image at half size, its
second half the result at half of that, with pyramid pooling; three light convolutions see the image itself. The three
maps are fused from coarse to fine, each step with a loss of its own.

Letters: N batch, C image channels, K classes, H W image, E encoder, D width of the fused maps and of the head.

How ours differs: nothing in the numbers of MMSegmentation's form, whose pyramid pooling concatenates where the authors'
sums.

Any image size of at least 16 pixels a side; smaller ones are padded. Maps round as the encoder's do.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.resnet import ResNet
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_least
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

LEAST = 16
"""Pixels of an image's side: of fewer no cell would be left after the second halving."""


@dataclass(frozen=True, kw_only=True)
class ICNetConfig(DenseConfig):
    """Settings of an ICNet, besides those of `DenseConfig`.

    encoder: a ResNet of output stride 8 and its options.
    light_channels: width of the three convolutions that see the image itself; the last has twice as many.
    pool_channels: width of pyramid pooling.
    branch_channels: width at which the two deeper branches are fused.
    channels: width of the fused maps and of the head, D.
    align_corners: how maps and logits are upsampled.
    aux: also train heads on the fused maps before the last, named "stride16" and "stride8".
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c", output_stride=8)
    dropout: float = 0.0
    light_channels: int = 32
    pool_channels: int = 512
    branch_channels: int = 256
    channels: int = 128
    align_corners: bool = False


def halved(x: Tensor) -> Tensor:
    """Return a map (N, C, h, w) at half its size, rounding down."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


class CascadeEncoder(PyramidEncoder):
    """Three branches of one image: light at full size, the encoder's first half at half, its second at a quarter.

    Raises:
        UsageError: another encoder than a whole ResNet.
    """

    def __init__(self, config: ICNetConfig):
        super().__init__()
        resnet = create_encoder(config.encoder, in_channels=config.in_channels)
        if not isinstance(resnet, ResNet) or resnet.layers < 4:
            raise UsageError("model.encoder: ICNet runs a ResNet half by half, expected a whole one such as resnet50c")
        resnet.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
        self.resnet = resnet
        light, branch = config.light_channels, config.branch_channels
        self.light = nn.Sequential(
            ConvBNReLU(config.in_channels, light, stride=2),
            ConvBNReLU(light, light, stride=2),
            ConvBNReLU(light, 2 * light, stride=2),
        )
        self.ppm = PPM(resnet.channels[4], config.pool_channels, align_corners=config.align_corners)
        self.middle = ConvBNReLU(resnet.channels[2], branch, 1)
        self.deep = ConvBNReLU(config.pool_channels, branch, 1)
        self.channels, self.strides = (2 * light, branch, branch), (8, 16, 32)
        for part in (self.light, self.ppm, self.middle, self.deep):
            init_weights(part)

    @property
    def pretrained(self) -> nn.Module:
        """The ResNet."""
        return self.resnet

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 8, 16, 32."""
        fine = self.run_stage(self.light, x)
        first, second, third, fourth = (self.resnet.get_submodule(f"layer{index}") for index in (1, 2, 3, 4))
        x = self.resnet.maxpool(self.run_stage(self.resnet.stem, halved(x)))
        x = self.run_stage(second, self.run_stage(first, x))  # (N, E, H/16, W/16)
        middle = self.middle(x)
        x = self.run_stage(fourth, self.run_stage(third, halved(x)))  # (N, E, H/32, W/32)
        return [fine, middle, self.deep(self.ppm(x))]

    def stages(self) -> list[list[nn.Module]]:
        """Return those of the ResNet; the light branch begins with the first, pooling comes with the last."""
        first, *further, last = self.resnet.stages()
        return [[self.light, *first], *further, [*last, self.ppm, self.middle, self.deep]]


class CascadeFusion(nn.Module):
    """The coarse map upsampled through a dilated convolution, the fine one through a 1x1 convolution; their sum."""

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.coarse = ConvBNReLU(coarse_channels, channels, dilation=2)
        self.fine = ConvBNReLU(fine_channels, channels, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Map coarse (N, _, h', w') and fine (N, _, h, w) to their sum and to the coarse part, (N, channels, h, w)."""
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        coarse = self.coarse(coarse)
        return coarse + self.fine(fine), coarse


class ICNet(nn.Module):
    """Three branches, cascade fusion, a 3x3 convolution, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: ICNetConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = CascadeEncoder(config)
        fine, middle, deep = self.encoder.channels
        width, corners = config.channels, config.align_corners
        self.fuse16 = CascadeFusion(deep, middle, width, align_corners=corners)
        self.fuse8 = CascadeFusion(width, fine, width, align_corners=corners)
        self.conv = ConvBNReLU(width, width)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            for name in ("stride16", "stride8"):
                self.aux_heads[name] = FCNHead(width, config.num_classes, channels=width)
        for part in (self.fuse16, self.fuse8, self.conv, self.classifier, self.aux_heads):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def fuse(self, features: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map the three branches to the fused map (N, D, H/8, W/8), and to the coarse part of each fusion."""
        fine, middle, deep = features
        at16, coarse16 = self.fuse16(deep, middle)
        at8, coarse8 = self.fuse8(at16, fine)
        return at8, [coarse16, coarse8]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/8, W/8)."""
        out: Tensor = self.conv(self.fuse(features)[0])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_least(image_of(inputs), LEAST)
        fused, coarse = self.fuse(self.encoder(x))
        logits = self.classifier(self.dropout(self.conv(fused)))
        aux = {}
        if self.training:
            aux = {name: head(given) for (name, head), given in zip(self.aux_heads.items(), coarse, strict=False)}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample, aux)


ARCHITECTURE = Architecture(
    name="icnet",
    title="ICNet",
    paper="https://arxiv.org/abs/1704.08545",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ICNetConfig,
    build=ICNet,
    variants={f"icnet_r{depth}": {"encoder": f"resnet{depth}c", "output_stride": 8} for depth in (18, 50, 101)},
    tiny={
        "encoder": "resnet18_w8",
        "output_stride": 8,
        "light_channels": 4,
        "pool_channels": 8,
        "branch_channels": 8,
        "channels": 8,
        "aux": True,
    },
)
