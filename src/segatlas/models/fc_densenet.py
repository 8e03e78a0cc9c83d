"""FC-DenseNet: dense blocks on the way down and up, the hundred layers of the "Tiramisu".

Paper: Jégou et al. 2017, "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation",
https://arxiv.org/abs/1611.09326.

Idea: every layer of a dense block sees the maps of all layers before it and adds a few of its own, so a deep network
stays small. On the way up only the maps that a block has made are upsampled, not what it was given: the widths do not
explode, and what is left out comes back through the skip.

Letters: N batch, C image channels, K classes, H W image, h w any map, G maps that a layer adds (growth).

How ours differs: nothing in the layers. The authors test with the statistics of the batch, as they train; ours
tests with running averages.

Any image size: maps are pooled without padding, and what is upsampled is cut to the size of the skip. Only an image of
fewer than 32 pixels a side is padded to that, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import cut, pad_to_least
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of

EPS = 1e-4
"""Of batch norm, as in Lasagne."""


@dataclass(frozen=True, kw_only=True)
class FCDenseNetConfig:
    """Settings of an FC-DenseNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    width: channels of the first convolution.
    growth: maps that each layer adds, G.
    layers: layers of each block: those on the way down, the deepest, those on the way up; as many up as down.
    dropout: fraction of values dropped after each layer while training.
    """

    num_classes: int
    in_channels: int = 3
    width: int = 48
    growth: int = 16
    layers: tuple[int, ...] = (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse widths below 1 and a way up that is not as long as the way down."""
        require_at_least(self, width=1, growth=1)
        if len(self.layers) < 3 or len(self.layers) % 2 == 0 or min(self.layers) < 1:
            raise UsageError(
                f"layers: got {self.layers}, expected an odd number of entries, each 1 or more: down, deepest, up"
            )


class BNReLUConv(nn.Sequential):
    """Batch norm, ReLU, convolution with bias, dropout."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dropout: float):
        super().__init__(
            BatchNorm2d(in_channels, eps=EPS),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.Dropout(dropout),
        )


class DenseBlock(nn.Module):
    """Layers of G new maps each, which see all maps before them."""

    def __init__(self, in_channels: int, layers: int, growth: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(BNReLUConv(in_channels + i * growth, growth, 3, dropout) for i in range(layers))
        self.new_channels = layers * growth
        self.out_channels = in_channels + self.new_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w): what was given first, then what each layer added."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x

    def new(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to what the layers added alone, (N, new_channels, h, w)."""
        return self(x)[:, -self.new_channels :]


class DenseEncoder(PyramidEncoder):
    """The way down: a block at each stride, halved between; the deepest gives its new maps alone."""

    def __init__(self, config: FCDenseNetConfig, layers: tuple[int, ...]):
        super().__init__()
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        self.blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        channels: list[int] = []
        given = config.width
        for count in layers:
            block = DenseBlock(given, count, config.growth, config.dropout)
            given = block.out_channels
            self.blocks.append(block)
            channels.append(given)
        for width in channels[:-1]:
            self.downs.append(nn.Sequential(BNReLUConv(width, width, 1, config.dropout), nn.MaxPool2d(2)))
        self.channels = (*channels[:-1], layers[-1] * config.growth)
        self.strides = tuple(2**level for level in range(len(layers)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to the maps of the blocks, finest first."""
        x = self.stem(x)
        features = []
        for block, down in zip(self.blocks, self.downs, strict=False):
            features.append(self.run_stage(block, x))
            x = self.run_stage(down, features[-1])
        deepest = self.blocks[-1]
        assert isinstance(deepest, DenseBlock)
        return [*features, self.run_stage(deepest.new, x)]

    def stages(self) -> list[list[nn.Module]]:
        """Return the first convolution with the first block, then what leads to each further one with it."""
        first, *further = self.blocks
        return [[self.stem, first], *([down, block] for down, block in zip(self.downs, further, strict=True))]


class UpBlock(nn.Module):
    """A transposed convolution doubles the new maps of the block below; then the skip, and a dense block."""

    def __init__(self, in_channels: int, skip_channels: int, layers: int, growth: int, dropout: float):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels, kernel_size=3, stride=2)
        self.block = DenseBlock(in_channels + skip_channels, layers, growth, dropout)

    def joined(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) and skip (N, skip_channels, h', w') to both concatenated, at h' w'.

        The doubled map is one or two cells larger than the skip: its last rows and columns go.
        """
        x = cut(self.up(x), 0, 0, (skip.shape[-2], skip.shape[-1]))
        return torch.cat([x, skip], dim=1)


class FCDenseNet(nn.Module):
    """Dense blocks down and up, 1x1 classifier: logits at stride 1."""

    def __init__(self, config: FCDenseNetConfig):
        super().__init__()
        depth = len(config.layers) // 2
        self.encoder = DenseEncoder(config, config.layers[: depth + 1])
        *skips, given = self.encoder.channels
        self.decoder = nn.ModuleList()
        for layers in config.layers[depth + 1 :]:
            step = UpBlock(given, skips.pop(), layers, config.growth, config.dropout)
            given = step.block.new_channels
            self.decoder.append(step)
        self.classifier = nn.Conv2d(step.block.out_channels, config.num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.get_parameter("bias"))

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, _, H, W)."""
        *skips, x = features
        for step in self.decoder:
            assert isinstance(step, UpBlock)
            joined = step.joined(x, skips.pop())
            x = step.block.new(joined) if skips else step.block(joined)
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H, W)."""
        x = pad_to_least(image_of(inputs), self.encoder.strides[-1])
        logits = self.classifier(self.decode(self.encoder(x)))
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="fc_densenet",
    title="FC-DenseNet",
    paper="https://arxiv.org/abs/1611.09326",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FCDenseNetConfig,
    build=FCDenseNet,
    variants={
        "fc_densenet56": {"growth": 12, "layers": (4,) * 11},
        "fc_densenet67": {"layers": (5,) * 11},
        "fc_densenet103": {},
    },
    tiny={"width": 8, "growth": 4, "layers": (1, 2, 1, 2, 1)},
)
