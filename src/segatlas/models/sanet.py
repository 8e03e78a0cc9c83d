"""SANet: one shallow network that splits by channels, dilates the fine half and pools the coarse one in strips.

Paper: Wang et al. 2023, "Spatial-Assistant Encoder-Decoder Network for Real Time Semantic Segmentation",
https://arxiv.org/abs/2309.10519.

Idea: at stride 8 the channels part: one half stays there and widens its view by dilated convolutions (the spatial
path), the other goes on to stride 64, and they exchange what they found on the way. The deepest map is pooled along
rows and then along columns (APPPM); the decoder (SAD) weighs it against the spatial path. Two more heads teach in
training only: classes at stride 16, and where labels change.

Letters: N batch, C image channels, K classes, H W image, P channels of the first stage (`width`), h w any map.

How ours differs: nothing in the numbers. What the authors' files hold and never run (four 1x1 convolutions of the
pooling, a second boundary head, classifiers of ImageNet) is not here. Their network takes multiples of 8; other images
are padded right and bottom, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

STRIDE = 8
"""Of the spatial path and of the logits."""
STRIPS = (5, 9, 17)
"""Lengths of the pooled strips; the stride is nearly half of it."""
STRIP_STRIDES = (2, 4, 8)
BOUNDARY_CHANNELS = 32


@dataclass(frozen=True, kw_only=True)
class SANetConfig:
    """Settings of a SANet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    width: channels of the first stage, P; further ones have 2, 4 and 8 times as many.
    depths: residual blocks of the stages at stride 4; 8, of which there are two stages; 16; and 32.
    rates: dilation of each convolution of the spatial path before its first exchange.
    further_rates: those of the spatial path after it.
    channels: width of the decoder and of the heads.
    dropout: fraction of values dropped between the two convolutions of a head while training.
    aux: also train a head at stride 16, named "stride16", and one that draws where labels change, named "boundary".
    """

    num_classes: int
    in_channels: int = 3
    width: int = 32
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    rates: tuple[int, ...] = (1, 2, 5)
    further_rates: tuple[int, ...] = (7, 13)
    channels: int = 64
    dropout: float = 0.0
    aux: bool = False

    def __post_init__(self) -> None:
        """Refuse stages without blocks and paths without convolutions."""
        require_at_least(self, width=1, channels=1)
        for name in ("depths", "rates", "further_rates"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise UsageError(f"{name}: got {values}, expected entries of 1 or more")


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Upsample (N, _, h, w) bilinearly to the size of another map."""
    return F.interpolate(x, size=(like.shape[-2], like.shape[-1]), mode="bilinear", align_corners=False)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Make a convolution without bias that keeps the size but for its stride, then batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, BatchNorm2d(out_channels))


class BNReLUConv(nn.Module):
    """Batch norm, ReLU, then a convolution without bias that keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1):
        super().__init__()
        self.bn = BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.conv(F.relu(self.bn(x), inplace=True))
        return out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions added to what was given; the last block of a stage leaves the ReLU to whoever takes it."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, last: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        plain = stride == 1 and in_channels == channels
        self.downsample = nn.Identity() if plain else conv_bn(in_channels, channels, 1, stride=stride)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        return y if self.last else F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 of stride 2, and 1x1 to twice the channels, added to a 1x1 of stride 2; no ReLU at the end."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = ConvBNReLU(channels, channels, 1)
        self.conv = ConvBNReLU(channels, channels, 3, stride=2)
        self.expand = conv_bn(channels, 2 * channels, 1)
        self.downsample = conv_bn(channels, 2 * channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, 2 channels, h / 2, w / 2)."""
        out: Tensor = self.expand(self.conv(self.reduce(x))) + self.downsample(x)
        return out


def stage(in_channels: int, channels: int, blocks: int, *, stride: int = 1) -> nn.Sequential:
    """Make residual blocks, the first of them strided, the last without its ReLU."""
    given = ((in_channels, stride), *((channels, 1) for _ in range(blocks - 1)))
    return nn.Sequential(
        *(
            BasicBlock(width, channels, stride=step, last=index == blocks - 1)
            for index, (width, step) in enumerate(given)
        )
    )


class DilatedPath(nn.Module):
    """Dilated 3x3 convolutions in a row, behind a 1x1 convolution where the width changes."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]):
        super().__init__()
        self.widen = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, kernel_size=1)
        self.convs = nn.Sequential(*(ConvBNReLU(channels, channels, dilation=rate) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        out: Tensor = self.convs(self.widen(x))
        return out


class SpatialAssistantEncoder(PyramidEncoder):
    """The spatial path at stride 8 and the semantic one to stride 64, which exchange what they found twice.

    Five maps, 4P channels each but the last, of 16P: the spatial path after its first exchange, after its further
    convolutions, and with the semantic path added (all at stride 8); the semantic path at strides 16 and 64.
    """

    def __init__(self, config: SANetConfig):
        super().__init__()
        width, (n1, n2, n3, n4) = config.width, config.depths
        self.channels, self.strides = (*(4 * width,) * 4, 16 * width), (STRIDE, STRIDE, STRIDE, 16, 64)
        self.size_divisibility = STRIDE
        given = (config.in_channels, width, width)
        self.stem = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), BatchNorm2d(after), nn.ReLU(inplace=True))
                for before, after in pairwise(given)
            )
        )
        self.layer1 = stage(width, width, n1)
        self.layer2 = stage(width, 2 * width, n2, stride=2)
        self.layer3 = stage(2 * width, 4 * width, n2)
        self.layer4 = stage(2 * width, 4 * width, n3, stride=2)
        self.layer5 = stage(4 * width, 8 * width, n4, stride=2)
        self.layer6 = Bottleneck(8 * width)
        self.spatial = DilatedPath(2 * width, 4 * width, config.rates)
        self.further_spatial = DilatedPath(4 * width, 4 * width, config.further_rates)
        self.down4 = conv_bn(4 * width, 4 * width, stride=2)
        self.down5 = nn.Sequential(
            *conv_bn(4 * width, 4 * width, stride=2), nn.ReLU(inplace=True), *conv_bn(4 * width, 8 * width, stride=2)
        )
        self.compression = conv_bn(8 * width, 4 * width, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W), sides multiples of 8, to five maps."""
        x = self.layer1(self.stem(x))  # (N, P, H/4, W/4)
        x3 = self.run_stage(self.layer3, F.relu(self.run_stage(self.layer2, F.relu(x))))  # (N, 4P, H/8, W/8)
        fine, coarse = (F.relu(half) for half in x3.chunk(2, dim=1))  # each lies in memory by itself

        spatial = self.run_stage(self.spatial, fine)  # (N, 4P, H/8, W/8)
        x4 = self.run_stage(self.layer4, coarse)  # (N, 4P, H/16, W/16)
        x = F.relu(x4 + self.down4(spatial), inplace=True)
        spatial = x3 + (spatial + upsample(F.relu(x4), spatial))

        further = self.run_stage(self.further_spatial, spatial)
        x = self.run_stage(self.layer5, x)  # (N, 8P, H/32, W/32)
        x = F.relu(x + self.down5(F.relu(further)), inplace=True)
        both = further + upsample(self.compression(x), further)  # (N, 4P, H/8, W/8)
        return [spatial, further, both, x4, self.run_stage(self.layer6, x)]

    def stages(self) -> list[list[nn.Module]]:
        """Return stem and layer1, then each layer with the part of the spatial path beside it."""
        return [
            [self.stem, self.layer1],
            [self.layer2],
            [self.layer3],
            [self.layer4, self.spatial, self.down4],
            [self.layer5, self.further_spatial, self.down5, self.compression],
            [self.layer6],
        ]


class StripPooling(nn.Module):
    """Asymmetric pooling pyramid (APPPM): mean over strips along rows, convolve, the same along columns, convolve.

    Three lengths of strips, the mean over the image, and the map itself; all at its size, fused. A gate per pixel says
    how much of that is taken and how much of a plain 1x1 convolution of the map.
    """

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.local = BNReLUConv(in_channels, channels)
        self.rows = nn.ModuleList(BNReLUConv(in_channels, channels, 3) for _ in STRIPS)
        self.columns = nn.ModuleList(BNReLUConv(channels, channels, 3) for _ in STRIPS)
        self.whole = BNReLUConv(in_channels, channels)
        self.fuse = BNReLUConv((len(STRIPS) + 2) * channels, channels)
        self.shortcut = BNReLUConv(in_channels, channels)
        self.gate = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        branches = [self.local(x)]
        for row, column, length, step in zip(self.rows, self.columns, STRIPS, STRIP_STRIDES, strict=True):
            y = row(F.avg_pool2d(x, (1, length), (1, step), (0, length // 2)))  # zeros beyond the edge are counted
            y = column(F.avg_pool2d(y, (length, 1), (step, 1), (length // 2, 0)))
            branches.append(upsample(y, x))
        branches.append(upsample(self.whole(F.adaptive_avg_pool2d(x, 1)), x))
        pooled, plain = self.fuse(torch.cat(branches, dim=1)), self.shortcut(x)
        gate = self.gate(F.relu(plain + pooled)).sigmoid()  # (N, 1, h, w)
        out: Tensor = gate * plain + (1 - gate) * pooled
        return out


class SpatialAttentionDecoder(nn.Module):
    """Simple attention decoder (SAD): the spatial path says where semantic and pooled maps count, by 1x3 and 3x1."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.across = nn.Conv2d(in_channels, in_channels, (1, 3), padding=(0, 1), bias=False)
        self.down = nn.Conv2d(in_channels, in_channels, (3, 1), padding=(1, 0), bias=False)
        self.out = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)

    def forward(self, spatial: Tensor, both: Tensor, context: Tensor) -> Tensor:
        """Map two maps (N, in_channels, h, w) and the context (N, in_channels, h', w') to (N, channels, h, w)."""
        attention = self.across(spatial).sigmoid() + self.down(spatial).sigmoid()  # each value within 0..2
        context = upsample(F.relu(context), both)
        out: Tensor = self.out(both * (1 + attention) + context * (2 - attention))
        return out

    def inference_form(self) -> FusedDecoder:
        """Return this with its sums written into few maps."""
        return FusedDecoder(self)


class FusedDecoder(nn.Module):
    """`SpatialAttentionDecoder` in fewer passes over memory: both + 2 context + attention (both - context)."""

    def __init__(self, decoder: SpatialAttentionDecoder):
        super().__init__()
        self.across, self.down, self.out = decoder.across, decoder.down, decoder.out

    def forward(self, spatial: Tensor, both: Tensor, context: Tensor) -> Tensor:
        """Map as `SpatialAttentionDecoder` does."""
        attention = self.across(spatial).sigmoid_().add_(self.down(spatial).sigmoid_())
        context = upsample(F.relu(context), both)
        difference = attention.mul_(both - context)
        out: Tensor = self.out(difference.add_(both).add_(context, alpha=2))
        return out


class Head(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, then batch norm and ReLU: what a 1x1 classifier takes."""

    def __init__(self, in_channels: int, channels: int, dropout: float = 0.0):
        super().__init__()
        self.reduce = BNReLUConv(in_channels, channels, 3)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.bn = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        return F.relu(self.bn(self.dropout(self.reduce(x))), inplace=True)


class SANet(nn.Module):
    """Two paths, pooling in strips, decoder, head with 1x1 classifier: logits at stride 8."""

    def __init__(self, config: SANetConfig):
        super().__init__()
        self.encoder = SpatialAssistantEncoder(config)
        fine, *_, mid, deepest = self.encoder.channels
        channels, dropout = config.channels, config.dropout
        self.context = StripPooling(deepest, fine)
        self.decoder = SpatialAttentionDecoder(fine, channels)
        self.head = Head(channels, channels, dropout)
        self.classifier = nn.Conv2d(channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict()
        if config.aux:
            self.aux_heads["stride16"] = nn.Sequential(
                Head(mid, channels, dropout), nn.Conv2d(channels, config.num_classes, kernel_size=1)
            )
            self.aux_heads["boundary"] = nn.Sequential(
                Head(fine, BOUNDARY_CHANNELS, dropout), nn.Conv2d(BOUNDARY_CHANNELS, 1, kernel_size=1)
            )
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        return tuple(self.aux_heads)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, channels, H/8, W/8)."""
        spatial, further, both, _, deepest = features
        out: Tensor = self.head(self.decoder(spatial + further, both, self.context(F.relu(deepest))))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = pad_to_multiple(image_of(inputs), STRIDE)
        features = self.encoder(x)
        logits = self.classifier(self.decode(features))
        aux = {}
        if self.training and self.aux_heads:
            _, _, both, x4, _ = features
            aux = {"stride16": self.aux_heads["stride16"](x4), "boundary": self.aux_heads["boundary"](both)}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), Resample(align_corners=True), aux)


ARCHITECTURE = Architecture(
    name="sanet",
    title="SANet",
    paper="https://arxiv.org/abs/2309.10519",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SANetConfig,
    build=SANet,
    variants={
        "sanet_s": {},
        "sanet_m": {"depths": (3, 3, 9, 3)},
        "sanet_l": {"depths": (3, 3, 27, 3), "rates": (1, 2, 5, 7, 13), "further_rates": (1, 2, 5, 7, 13)},
    },
    tiny={"width": 4, "depths": (1, 2, 1, 1), "channels": 8, "aux": True},
    exports_dynamic=False,
    not_dynamic_because="capture asks whether its maps at stride 64, and the strips pooled of them, have a second cell "
    "in height and in width, and keeps the answers",
)
