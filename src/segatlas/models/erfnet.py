"""ERFNet: residual blocks whose 3x3 convolutions are factorised into a column and a row.

Paper: Romera et al. 2018, "ERFNet: Efficient Residual Factorized ConvNet for Real-time Semantic Segmentation",
https://doi.org/10.1109/TITS.2017.2750080.

Idea: a 3x1 and a 1x3 convolution see what a 3x3 one sees for two thirds of its price. Blocks of these, dilated in the
deepest stage, make a plain encoder and a small decoder.

Letters: N batch, C image channels, K classes, H W image, E widths, D width of the head.

How ours differs: nothing in the numbers of MMSegmentation's form. It ends at stride 2 with a 3x3 convolution and a
classifier, where the authors' ends with a transposed convolution to full size.

Any image size of at least 8 pixels a side, smaller ones are padded. Of a size that is no multiple of 8 the map goes
over the edge, and is squeezed to the image as in MMSegmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_least
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

EPS = 1e-3
"""Of batch norm, but in the head."""


@dataclass(frozen=True, kw_only=True)
class ERFNetConfig:
    """Settings of an ERFNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels at strides 2, 4 and 8, E; each more than the one before.
    blocks: residual blocks at stride 4.
    dilations: of the residual blocks at stride 8.
    decoder_blocks: residual blocks after each doubling on the way up.
    channels: width of the head, D.
    block_dropout: fraction of values dropped in each of the encoder's blocks while training.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how logits are upsampled.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int] = (16, 64, 128)
    blocks: int = 5
    dilations: tuple[int, ...] = (2, 4, 8, 16, 2, 4, 8, 16)
    decoder_blocks: int = 2
    channels: int = 128
    block_dropout: float = 0.1
    dropout: float = 0.1
    align_corners: bool = False

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        require_at_least(self, channels=1, blocks=0, decoder_blocks=0)


class ConvAndPool(nn.Module):
    """To half the size by a strided convolution and by max pooling, concatenated."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.pools = out_channels > in_channels
        convolved = out_channels - in_channels if self.pools else out_channels
        self.conv = nn.Conv2d(in_channels, convolved, 3, stride=2, padding=1)
        self.bn = BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h/2, w/2), rounding up."""
        out: Tensor = self.conv(x)
        if self.pools:
            pooled = F.max_pool2d(x, kernel_size=2, stride=2)  # rounds down, and is stretched
            pooled = F.interpolate(pooled, size=out.shape[-2:], mode="bilinear", align_corners=False)
            out = torch.cat([out, pooled], dim=1)
        return F.relu(self.bn(out))


class FactorisedBlock(nn.Module):
    """Column, row, column, row, the last two dilated; batch norm after each pair, and a shortcut."""

    def __init__(self, channels: int, *, dilation: int = 1, dropout: float = 0.0):
        super().__init__()
        self.pairs = nn.ModuleList()
        for step in (1, dilation):
            column = nn.Conv2d(channels, channels, (3, 1), padding=(step, 0), dilation=(step, 1))
            row = nn.Conv2d(channels, channels, (1, 3), padding=(0, step), dilation=(1, step))
            self.pairs.append(nn.Sequential(column, nn.ReLU(inplace=True), row, BatchNorm2d(channels, eps=EPS)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        first, second = self.pairs
        return F.relu(self.dropout(second(F.relu(first(x)))) + x)


class Up(nn.Module):
    """A transposed convolution to exactly twice the size, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.bn = BatchNorm2d(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, 2 h, 2 w)."""
        return F.relu(self.bn(self.conv(x)))


class FactorisedEncoder(PyramidEncoder):
    """Three halvings, factorised blocks after the second and the third."""

    def __init__(self, config: ERFNetConfig):
        super().__init__()
        first, second, third = config.widths
        drop = config.block_dropout
        self.levels = nn.ModuleList(
            [
                nn.Sequential(ConvAndPool(config.in_channels, first)),
                nn.Sequential(
                    ConvAndPool(first, second), *(FactorisedBlock(second, dropout=drop) for _ in range(config.blocks))
                ),
                nn.Sequential(
                    ConvAndPool(second, third),
                    *(FactorisedBlock(third, dilation=dilation, dropout=drop) for dilation in config.dilations),
                ),
            ]
        )
        self.channels, self.strides = config.widths, (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8."""
        maps = []
        for level in self.levels:
            x = self.run_stage(level, x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the three levels."""
        return [[level] for level in self.levels]


class ERFNet(nn.Module):
    """Encoder, two doublings with factorised blocks, a 3x3 convolution, 1x1 classifier: logits at stride 2."""

    def __init__(self, config: ERFNetConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = FactorisedEncoder(config)
        first, second, third = config.widths
        self.decoder = nn.Sequential()
        for given, width in ((third, second), (second, first)):
            self.decoder.append(Up(given, width))
            self.decoder.extend(FactorisedBlock(width) for _ in range(config.decoder_blocks))
        self.conv = ConvBNReLU(first, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        init_weights(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/2, W/2)."""
        out: Tensor = self.conv(self.decoder(features[-1]))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/2, W/2), of the next multiples of 8."""
        x = pad_to_least(image_of(inputs), self.encoder.strides[-1])
        logits = self.classifier(self.dropout(self.decode(self.encoder(x))))
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample)


ARCHITECTURE = Architecture(
    name="erfnet",
    title="ERFNet",
    paper="https://doi.org/10.1109/TITS.2017.2750080",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ERFNetConfig,
    build=ERFNet,
    tiny={"widths": (8, 12, 16), "blocks": 1, "dilations": (2, 4), "decoder_blocks": 1, "channels": 8},
)
