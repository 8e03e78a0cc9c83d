"""Panoptic-DeepLab: a class for each pixel, and the way to the centre of its object; nothing is proposed.

Paper: Cheng et al. 2020, "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation",
https://arxiv.org/abs/1911.10194.

Idea: two decoders on one encoder. One gives the class of each pixel; the other, a narrower one, a heat map whose peaks
are the centres of things, and for each pixel the way to the centre of its own thing. Pixels of things that point at the
same centre are one segment, of the class that most of them have.

    image (N, C, H, W) -> encoder -> maps at strides 4, 8, 16 and the last
    last map -> ASPP -> upsample, join with the next finer map behind a 1x1, one separable 5x5; and so on to stride 4
    semantic decoder (N, D, h, w) -> separable 5x5 -> classes (N, K, h, w)
    instance decoder (N, d, h, w) -> separable 5x5, twice -> centres (N, 1, h, w) and offsets (N, 2, h, w)

Letters: N batch, C image channels, K classes, H W image, D d widths of the two decoders, h w the map at stride 4.

How ours differs: nothing in the numbers. Offsets leave in pixels of the image. Detectron2's form (ResNet-52, half the
stride at the end, fewer maps, two 3x3 convolutions or separable ones in the ASPP too) is told by fields; its image
pooling sees windows as large as its training crops, and only images made of whole windows are taken there. Here any
size is: where windows do not fit, the whole map is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.separable import SeparableConvBNReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.structures import CentersAndOffsets, Inputs, Resample, image_of

STRIDE = 4
"""Of the maps that leave."""


@dataclass(frozen=True, kw_only=True)
class PanopticDeepLabConfig:
    """Settings of a Panoptic-DeepLab.

    num_classes: classes, things and stuff, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    rates: dilations of both ASPPs' 3x3 convolutions; the paper's are these at stride 32, doubled at stride 16.
    aspp_channels: width of both ASPPs.
    channels: width of the semantic decoder, D.
    instance_channels: width of the instance decoder, d.
    low_channels: of the encoder's finer maps behind their 1x1 convolutions in the semantic decoder, the coarsest first;
        the last is the one at stride 4.
    instance_low_channels: the same in the instance decoder.
    head_channels: width of the semantic head.
    instance_head_channels: width of the heads of centres and offsets.
    separable: decoders join maps, and heads begin, by one separable 5x5 convolution; else by two plain 3x3 ones.
    separable_aspp: the ASPPs' 3x3 convolutions are separable too.
    separable_centers: the head of centres begins as `separable` says; else by two plain 3x3 convolutions.
    early_first: a finer map stands before the upsampled one where they are joined, not behind it.
    pool_bias: the convolution of the ASPPs' image pooling has a bias.
    pool_window: (rows, columns) of image pixels that image pooling averages together, where the image is made of whole
        such windows; None, and else = the whole image.
    dropout: fraction of values dropped behind both ASPPs while training.
    align_corners: how maps and outputs are upsampled.
    padding: images grow right and bottom to multiples of so many pixels.
    bgr: the encoder was trained on channels in the order blue, green, red, so the image's are turned round for it.
    stuff_classes: which classes are stuff, of weights that come without a list; None = as the list of classes says.
    center_score: a pixel is a centre only above this value of the heat map.
    center_window: and where it is the largest of a square of so many pixels a side.
    center_top: centres of an image that are looked at, the best.
    stuff_area: segments of stuff with fewer pixels go.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50")
    rates: tuple[int, ...] = (3, 6, 9)
    aspp_channels: int = 256
    channels: int = 256
    instance_channels: int = 128
    low_channels: tuple[int, ...] = (128, 64, 32)
    instance_low_channels: tuple[int, ...] = (64, 32, 16)
    head_channels: int = 256
    instance_head_channels: int = 32
    separable: bool = True
    separable_aspp: bool = False
    separable_centers: bool = True
    early_first: bool = False
    pool_bias: bool = False
    pool_window: tuple[int, int] | None = None
    dropout: float = 0.5
    align_corners: bool = True
    padding: int = 1
    bgr: bool = False
    stuff_classes: tuple[int, ...] | None = None
    center_score: float = 0.1
    center_window: int = 7
    center_top: int = 200
    stuff_area: int = 2048

    def __post_init__(self) -> None:
        require_at_least(
            self, num_classes=1, in_channels=1, aspp_channels=1, channels=1, instance_channels=1, head_channels=1
        )
        require_at_least(self, instance_head_channels=1, dropout=0, padding=1, center_top=1, stuff_area=0)
        if self.center_window < 1 or self.center_window % 2 == 0:
            raise UsageError(f"center_window: got {self.center_window}, expected an odd number of pixels")
        if self.stuff_classes is not None and not set(self.stuff_classes) <= set(range(self.num_classes)):
            raise UsageError(f"stuff_classes: got {self.stuff_classes}, expected some of 0 to {self.num_classes - 1}")
        if not self.low_channels or len(self.low_channels) != len(self.instance_low_channels):
            raise UsageError(
                f"low_channels and instance_low_channels: got {self.low_channels} and {self.instance_low_channels}, "
                "expected one number of each a map, and one map at least"
            )


class JoiningDecoder(nn.Module):
    """ASPP on the last map, then up to stride 4, a finer map at a time."""

    def __init__(
        self,
        config: PanopticDeepLabConfig,
        encoder_channels: Sequence[int],
        channels: int,
        low_channels: Sequence[int],
        *,
        window: tuple[int, int] | None,
    ):
        """Make the decoder over maps of `encoder_channels`, the coarsest first; `window` is in cells of that one."""
        super().__init__()
        last, *finer = encoder_channels
        self.aspp = aspp_of(config, last, window)
        self.dropout = nn.Dropout(config.dropout)
        self.low = nn.ModuleList(ConvBNReLU(c, low, 1) for c, low in zip(finer, low_channels, strict=True))
        widths = [config.aspp_channels, *[channels] * (len(low_channels) - 1)]
        self.join = nn.ModuleList(
            wide(width + low, channels, channels, separable=config.separable)
            for width, low in zip(widths, low_channels, strict=True)
        )
        self.align_corners, self.early_first = config.align_corners, config.early_first

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the encoder's maps, the coarsest first, to (N, channels, h, w) at stride 4."""
        last, *finer = features
        x = self.dropout(self.aspp(last))
        for low, join, feature in zip(self.low, self.join, finer, strict=True):
            early = low(feature)
            x = F.interpolate(x, size=early.shape[-2:], mode="bilinear", align_corners=self.align_corners)
            x = join(torch.cat([early, x] if self.early_first else [x, early], dim=1))
        return x


def wide(in_channels: int, inner: int, out_channels: int, *, separable: bool) -> nn.Module:
    """Return what sees 5x5 cells: one separable convolution, or two plain ones of 3x3 with `inner` channels between."""
    if separable:
        return SeparableConvBNReLU(in_channels, out_channels, kernel_size=5)
    return nn.Sequential(ConvBNReLU(in_channels, inner), ConvBNReLU(inner, out_channels))


def aspp_of(config: PanopticDeepLabConfig, in_channels: int, window: tuple[int, int] | None) -> ASPP:
    """Return the ASPP over a map (N, in_channels, h, w); the branch of its average has no norm."""
    width = config.aspp_channels
    branches = [
        ConvBNReLU(in_channels, width, 1),
        *(
            SeparableConvBNReLU(in_channels, width, dilation=rate)
            if config.separable_aspp
            else ConvBNReLU(in_channels, width, dilation=rate)
            for rate in config.rates
        ),
    ]
    pool = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=config.pool_bias), nn.ReLU(inplace=True))
    fuse = PooledFuse(len(branches) * width, [width], width, 1, align_corners=config.align_corners)
    return ASPP(branches, pool, fuse, window=window)


class Head(nn.Module):
    """What sees 5x5 cells, then a map."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, separable: bool):
        super().__init__()
        self.first = wide(in_channels, in_channels, channels, separable=separable)
        self.last = nn.Conv2d(channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.last(self.first(x))
        return out


class PanopticDeepLab(nn.Module):
    """Encoder, two decoders, three heads."""

    def __init__(self, config: PanopticDeepLabConfig):
        super().__init__()
        self.config = config
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        self.levels = levels_of(config, self.encoder.strides)
        self.size_divisibility = config.padding
        self.resample = Resample(align_corners=config.align_corners)
        channels = [self.encoder.channels[level] for level in self.levels]
        cells = self.encoder.strides[-1]
        pixels = config.pool_window
        window = None if pixels is None else (max(pixels[0] // cells, 1), max(pixels[1] // cells, 1))
        self.semantic_decoder = JoiningDecoder(config, channels, config.channels, config.low_channels, window=window)
        self.semantic_head = wide(config.channels, config.channels, config.head_channels, separable=config.separable)
        self.classifier = nn.Conv2d(config.head_channels, config.num_classes, kernel_size=1)
        width, narrow = config.instance_channels, config.instance_head_channels
        self.instance_decoder = JoiningDecoder(config, channels, width, config.instance_low_channels, window=window)
        self.centers = Head(width, narrow, 1, separable=config.separable and config.separable_centers)
        self.offsets = Head(width, narrow, 2, separable=config.separable)
        for part in (
            self.semantic_decoder,
            self.semantic_head,
            self.classifier,
            self.instance_decoder,
            self.centers,
            self.offsets,
        ):
            init_weights(part)
        for last in (self.classifier, self.centers.last, self.offsets.last):
            nn.init.normal_(last.weight, std=0.001)  # all classes alike, no centre, no way to go

    @property
    def things(self) -> tuple[bool, ...]:
        """Tell of each class whether it is one of things; () where the config does not say."""
        stuff = self.config.stuff_classes
        return () if stuff is None else tuple(index not in stuff for index in range(self.config.num_classes))

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Map the encoder's maps, finest first, to the map before the classifier: (N, head_channels, h, w)."""
        x: Tensor = self.semantic_head(self.semantic_decoder([features[level] for level in self.levels]))
        return x

    def forward(self, inputs: Tensor | Inputs) -> CentersAndOffsets:
        """Map a normalised image (N, C, H, W) to the three maps, 1 + 2 + K channels, at stride 4."""
        image = image_of(inputs)
        x = pad_to_multiple(image.flip(1) if self.config.bgr else image, self.size_divisibility)
        features = self.encoder(x)
        instances = self.instance_decoder([features[level] for level in self.levels])
        cells = instances.shape[-2:]  # whose corners are the image's, or which cover it and go beyond
        canvas = x.shape[-2:] if self.config.align_corners else (STRIDE * cells[0], STRIDE * cells[1])
        return CentersAndOffsets(
            centers=self.centers(instances),
            offsets=STRIDE * self.offsets(instances),
            foreground=None,
            canvas=(canvas[0], canvas[1]),
            resample=self.resample,
            semantic=self.classifier(self.decode(features)),
        )


def levels_of(config: PanopticDeepLabConfig, strides: Sequence[int]) -> tuple[int, ...]:
    """Return which of the encoder's maps the decoders take, the coarsest first.

    Raises:
        UsageError: it does not have them.
    """
    wanted = [STRIDE * 2**index for index in reversed(range(len(config.low_channels)))]
    missing = [stride for stride in wanted if stride not in strides[:-1]]
    if missing:
        raise UsageError(
            f"low_channels: {len(wanted)} finer maps are those at strides {wanted}; {config.encoder} has maps at "
            f"{list(strides)}, the last of which is not among them"
        )
    return (len(strides) - 1, *(strides.index(stride) for stride in wanted))


R52: dict[str, Any] = {
    "encoder": "resnet50c",
    "output_stride": 16,
    "encoder_options": {"stem_width": 128, "multi_grid": (2, 4, 8)},
    "rates": (6, 12, 18),
    "low_channels": (64, 32),
    "instance_low_channels": (64, 32),
    "separable": False,
    "separable_centers": False,
    "early_first": True,
    "pool_bias": True,
    "pool_window": (512, 1024),
    "dropout": 0.1,
    "align_corners": False,
}
"""Fields of Detectron2's form on its ResNet-52, a ResNet-50 whose stem is three 3x3 convolutions."""

ARCHITECTURE = Architecture(
    name="panoptic_deeplab",
    title="Panoptic-DeepLab",
    paper="https://arxiv.org/abs/1911.10194",
    tasks=("panoptic",),
    output=CentersAndOffsets,
    config=PanopticDeepLabConfig,
    build=PanopticDeepLab,
    needs=Needs(targets=("SegmentsTarget",), losses=("hard_pixels", "center_mse", "offset_l1")),
    variants={
        "panoptic_deeplab_r50": {"encoder": "resnet50"},
        "panoptic_deeplab_r101": {"encoder": "resnet101"},
        "panoptic_deeplab_r52": R52,
        "panoptic_deeplab_r52_ds": {**R52, "separable": True, "separable_aspp": True},
    },
    tiny={
        "encoder": "resnet18_w8",
        "aspp_channels": 8,
        "channels": 8,
        "instance_channels": 8,
        "low_channels": (4, 4, 4),
        "instance_low_channels": (4, 4, 4),
        "head_channels": 8,
        "instance_head_channels": 4,
        "stuff_classes": (0,),
    },
)
