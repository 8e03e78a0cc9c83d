"""SegNet: a decoder that puts every value back where its maximum was found.

Paper: Badrinarayanan et al. 2017, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation",
https://arxiv.org/abs/1511.00561.

Idea: max pooling forgets where the largest value stood. SegNet keeps these places (the pooling indices), and its
decoder puts each value back there and fills the rest by convolutions: edges stay sharp, and no map of the encoder is
kept for them.

Letters: N batch, C image channels, K classes, H W image, h w any map.

How ours differs: nothing in the layers; the form is that of the authors' Caffe files. With a VGG as encoder the decoder
mirrors it (SegNet); without one the network is SegNet-Basic: four levels of 7x7 convolutions, no ReLU in the decoder.
`dropout` above 0 makes it the Bayesian SegNet: it drops values after the third and each deeper pooling, and after the
levels of the decoder that mirror those.

Any image size: pooling rounds up and the decoder returns to the size before each pooling, so nothing is padded; an
image smaller than the deepest stride just ends in a map of one cell.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.encoders.vgg import VGG, WIDTHS
from segatlas.errors import UsageError
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of

LEVELS = 4
"""Of SegNet-Basic."""

DRY_POOLINGS = 2
"""Poolings, the first ones, around which nothing is dropped."""


@dataclass(frozen=True, kw_only=True)
class SegNetConfig:
    """Settings of a SegNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a VGG, whose decoder mirrors it; None = SegNet-Basic.
    width: channels of all convolutions of SegNet-Basic; unused with an encoder.
    dropout: fraction of values dropped while training around the deeper levels (0.5 in the Bayesian SegNet); unused
        without an encoder.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec | None = EncoderSpec(name="vgg16_bn")
    width: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, width=1)


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Halve (N, C, h, w), rounding up; return the largest values and their flat positions in h x w."""
    pooled, places = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True, return_indices=True)
    return pooled, places


def unpool(x: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Put the values (N, C, h, w) at their places in a map (N, C, *size) of zeros."""
    empty = x.new_zeros(x.shape[0], x.shape[1], size[0] * size[1])
    return empty.scatter(2, places.flatten(2), x.flatten(2)).unflatten(2, size)


class ConvBN(nn.Module):
    """A convolution with bias, batch norm, and ReLU where it has one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class PooledEncoder(PyramidEncoder):
    """Levels of convolutions with 2x2 max pooling between, rounding up; gives the map before each pooling."""

    dropout: nn.Dropout

    @abstractmethod
    def levels_in_order(self) -> list[nn.Sequential]:
        """Return the layers before each pooling."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to the maps before each pooling, at strides 1, 2, 4, ..."""
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels_in_order()):
            if maps:
                x = F.max_pool2d(maps[-1], kernel_size=2, stride=2, ceil_mode=True)
                x = self.dropout(x) if index > DRY_POOLINGS else x
            maps.append(self.run_stage(level, x))
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the levels."""
        return [list(level) for level in self.levels_in_order()]


class BasicEncoder(PooledEncoder):
    """The encoder of SegNet-Basic: local response normalisation, then a 7x7 convolution before each pooling."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        first = nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75), ConvBN(in_channels, width, 7))
        further = (nn.Sequential(ConvBN(width, width, 7)) for _ in range(LEVELS - 1))
        self.levels = nn.ModuleList([first, *further])
        self.dropout = nn.Dropout(0.0)
        self.channels = (width,) * LEVELS
        self.strides = tuple(2**i for i in range(LEVELS))
        init_weights(self)

    def levels_in_order(self) -> list[nn.Sequential]:
        """See `PooledEncoder`."""
        return [level for level in self.levels if isinstance(level, nn.Sequential)]


class VGGEncoder(PooledEncoder):
    """A whole VGG.

    Raises:
        UsageError: another encoder, or one that is cut short.
    """

    def __init__(self, spec: EncoderSpec, in_channels: int, dropout: float):
        super().__init__()
        vgg = create_encoder(spec, in_channels=in_channels)
        if not isinstance(vgg, VGG) or not isinstance(vgg.features[-1], nn.MaxPool2d):
            raise UsageError(
                "model.encoder: SegNet climbs by the pooling indices of a whole VGG: vgg11 to vgg19, vgg11_bn to ..."
            )
        self.vgg = vgg
        self.dropout = nn.Dropout(dropout)
        self.convolutions = tuple(
            sum(isinstance(layer, nn.Conv2d) for layer in level) for level in self.levels_in_order()
        )
        self.channels = WIDTHS
        self.strides = tuple(2**i for i in range(len(WIDTHS)))

    @property
    def pretrained(self) -> nn.Module:
        """The VGG."""
        return self.vgg

    def levels_in_order(self) -> list[nn.Sequential]:
        """See `PooledEncoder`."""
        layers = self.vgg.features
        ends = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        return [layers[before + 1 : end] for before, end in pairwise((-1, *ends))]


class Mirror(nn.Sequential):
    """The convolutions of a level in reverse order: the last one leads to the width of the level above."""

    def __init__(self, in_channels: int, out_channels: int, convolutions: int):
        kept = [ConvBN(in_channels, in_channels) for _ in range(convolutions - 1)]
        super().__init__(*kept, ConvBN(in_channels, out_channels))


class SegNet(nn.Module):
    """Levels of convolutions with pooling between, and the way back by the pooling indices: logits at stride 1."""

    def __init__(self, config: SegNetConfig):
        super().__init__()
        self.encoder: PooledEncoder
        self.decoder = nn.ModuleList()
        if config.encoder is None:
            self.encoder = BasicEncoder(config.in_channels, config.width)
            self.decoder.extend(ConvBN(config.width, config.width, 7, relu=False) for _ in range(LEVELS))
            self.classifier = nn.Conv2d(config.width, config.num_classes, kernel_size=1)
        else:
            self.encoder = encoder = VGGEncoder(config.encoder, config.in_channels, config.dropout)
            widths, counts = encoder.channels, encoder.convolutions
            for level in range(len(widths) - 1, 0, -1):
                self.decoder.append(Mirror(widths[level], widths[level - 1], counts[level]))
            self.decoder.append(nn.Sequential(*(ConvBN(widths[0], widths[0]) for _ in range(counts[0] - 1))))
            self.classifier = nn.Conv2d(widths[0], config.num_classes, kernel_size=3, padding=1)
        self.dropout = nn.Dropout(config.dropout)
        init_weights(self.decoder)
        init_weights(self.classifier)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, _, H, W)."""
        pooled = [pool(x) for x in features]
        x = self.dropout(pooled[-1][0])
        for level in self.decoder:
            before = features[len(pooled) - 1]
            x = level(unpool(x, pooled.pop()[1], (before.shape[-2], before.shape[-1])))
            x = self.dropout(x) if len(pooled) >= DRY_POOLINGS else x
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H, W)."""
        x = image_of(inputs)
        logits = self.classifier(self.decode(self.encoder(x)))
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="segnet",
    title="SegNet",
    paper="https://arxiv.org/abs/1511.00561",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SegNetConfig,
    build=SegNet,
    variants={
        "segnet_vgg16": {},
        "segnet_bayesian": {"dropout": 0.5},
        "segnet_basic": {"encoder": None},
    },
    tiny={"encoder": None, "width": 4},
)
