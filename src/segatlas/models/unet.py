"""U-Net: an encoder, and a decoder that climbs back up and takes the encoder's map of the same size at every step.

Paper: Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
https://arxiv.org/abs/1505.04597.

Idea: deep maps know what, fine maps know where. Each step of the decoder doubles the size, puts the encoder's map of
that size beside its own, and lets two 3x3 convolutions combine them.

Letters: N batch, C image channels, K classes, H W image (padded to the canvas), h w any map.

How ours differs: the plain network (`encoder=None`, class `PlainUNet`) pads its convolutions and has batch norm, as all
later versions have; the paper's has neither and crops. With an encoder (class `UNet`) the decoder has the form made
common by segmentation-models-pytorch: nearest-neighbour doubling, 256-128-64-32-16 channels, a 3x3 classifier; with
`center` on a VGG, and scSE (https://arxiv.org/abs/1808.08127) where `attention` asks for it.

Any image size: the plain network pads right and bottom with zeros to a multiple of its largest stride, and says so in
`canvas`; with an encoder each step upsamples to the size of the encoder's map, so that nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.scse import SCSE
from segatlas.models.architecture import Architecture
from segatlas.models.dense import PresenceConfig, presence_head
from segatlas.ops.capture import larger, may_differ
from segatlas.structures import Inputs, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class UNetConfig(PresenceConfig):
    """Settings of a U-Net, besides those of `PresenceConfig`.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options; None = the plain network of the paper.
    width: channels of the plain network's first level, doubled at each further level; unused with an encoder.
    decoder_channels: channels after each step, deepest first; unused without an encoder. Fewer entries than steps stop
        early and leave the logits at a coarser stride: (256, 128, 64) on a ResNet gives stride 4.
    center: two 3x3 convolutions on the encoder's deepest map, before the steps; none without an encoder.
    attention: "scse" weights what a step to a stride above 1 joins, and the result of each, by channel and by pixel;
        none without an encoder.
    dropout: fraction of channels dropped before the classifier while training.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec | None = None
    width: int = 64
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    center: bool = False
    attention: Literal["scse"] | None = None
    dropout: float = 0.0
    aux: bool = False


class TwoConvs(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(ConvBNReLU(in_channels, out_channels), ConvBNReLU(out_channels, out_channels))


class PlainEncoder(PyramidEncoder):
    """The contracting path: five levels of two convolutions with 2x2 max pooling between them."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.strides = (1, 2, 4, 8, 16)
        self.channels = tuple(width * stride for stride in self.strides)
        inputs = (in_channels, *self.channels[:-1])
        self.levels = nn.ModuleList(map(TwoConvs, inputs, self.channels))
        self.pool = nn.MaxPool2d(kernel_size=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 1, 2, 4, 8, 16."""
        features = [self.run_stage(self.levels[0], x)]
        for level in list(self.levels)[1:]:
            features.append(self.run_stage(level, self.pool(features[-1])))
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the five levels."""
        return [[level] for level in self.levels]


class PlainStep(nn.Module):
    """One step of the expanding path: a transposed 2x2 convolution doubles the map, then skip and two convolutions."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.convs = TwoConvs(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) and skip (N, out_channels, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        out: Tensor = self.convs(torch.cat([skip, self.up(x)], dim=1))
        return out


class UpStep(nn.Module):
    """One step of the decoder behind a named encoder: nearest upsampling, skip (if any), two convolutions.

    Args:
        in_channels: of the map below and of the skip together.
        out_channels: of the result.
        joined: weight the joined maps by scSE.
        result: weight the result so.
    """

    def __init__(self, in_channels: int, out_channels: int, *, joined: bool = False, result: bool = False):
        super().__init__()
        self.attention1 = SCSE(in_channels) if joined else nn.Identity()
        self.conv1 = ConvBNReLU(in_channels, out_channels)
        self.conv2 = ConvBNReLU(out_channels, out_channels)
        self.attention2 = SCSE(out_channels) if result else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Map x (N, _, h, w) and skip (N, _, *size), together of in_channels, to (N, out_channels, *size)."""
        if may_differ(x.shape[-2:], size):
            x = F.interpolate(x, size=size, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        out: Tensor = self.attention2(self.conv2(self.conv1(self.attention1(x))))
        return out


class PlainUNet(nn.Module):
    """The network of the paper: logits at stride 1."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        if config.center or config.attention:
            raise UsageError("center and attention are for a U-Net on a named encoder; set encoder, too")
        self.encoder = PlainEncoder(config.in_channels, config.width)
        deepest_first = self.encoder.channels[::-1]
        self.decoder = nn.ModuleList(map(PlainStep, deepest_first[:-1], deepest_first[1:]))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.width, config.num_classes, kernel_size=1)
        self.aux_head = FCNHead(self.encoder.channels[-2], config.num_classes) if config.aux else None
        self.presence_head = presence_head(config, self.encoder.channels[-1])
        init_weights(self)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary logits that training gets."""
        return auxiliary_names(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, width, H, W)."""
        x = features[-1]  # (N, 16 width, H/16, W/16)
        for step, skip in zip(self.decoder, features[-2::-1], strict=True):
            x = step(x, skip)
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H, W)."""
        return self.forward_with_maps(inputs)[0]

    def forward_with_maps(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, list[Tensor], Tensor]:
        """Do as `forward`; return the output, the encoder's maps, and the map that was classified."""
        x = pad_to_multiple(image_of(inputs), self.encoder.strides[-1])
        features = self.encoder(x)
        decoded = self.decode(features)
        logits = self.classifier(self.dropout(decoded))
        return SemanticLogits(logits, canvas=canvas_of(x), aux=auxiliary(self, features)), features, decoded


class UNet(nn.Module):
    """A U-Net on a named encoder: logits at stride 1, or coarser where `decoder_channels` is short."""

    def __init__(self, config: UNetConfig, encoder: PyramidEncoder):
        super().__init__()
        self.encoder = encoder
        plan = decoder_plan(encoder, len(config.decoder_channels))
        self.decoder = nn.ModuleList()
        in_channels = encoder.channels[-1]
        self.center = TwoConvs(in_channels, in_channels) if config.center else nn.Identity()
        self.step_strides = tuple(stride for stride, _ in plan)
        attention = config.attention is not None
        for (stride, skip_channels), out_channels in zip(plan, config.decoder_channels, strict=True):
            joined = attention and stride > 1
            self.decoder.append(UpStep(in_channels + skip_channels, out_channels, joined=joined, result=attention))
            in_channels = out_channels
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(in_channels, config.num_classes, kernel_size=3, padding=1)
        self.aux_head = FCNHead(encoder.channels[-2], config.num_classes) if config.aux else None
        self.presence_head = presence_head(config, encoder.channels[-1])
        for part in (self.center, self.decoder, self.classifier, self.aux_head, self.presence_head):
            if part is not None:
                init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary logits that training gets."""
        return auxiliary_names(self)

    def decode(self, features: list[Tensor], image: tuple[int, int] | None = None) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, decoder_channels[-1], H/s, W/s).

        image is (H, W), from which steps finer than the encoder's maps take their size; None = from the finest map.
        """
        x, skips = self.center(features[-1]), features[-2::-1]
        finest, scale = features[0], self.encoder.strides[0]
        height, width = image or (scale * finest.shape[-2], scale * finest.shape[-1])
        for index, (step, stride) in enumerate(zip(self.decoder, self.step_strides, strict=True)):
            skip = skips[index] if index < len(skips) else None
            free = (larger(height // stride, 1), larger(width // stride, 1))
            size = free if skip is None else (skip.shape[-2], skip.shape[-1])
            x = step(x, skip, size)
        return x

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/s, W/s)."""
        return self.forward_with_maps(inputs)[0]

    def forward_with_maps(self, inputs: Tensor | Inputs) -> tuple[SemanticLogits, list[Tensor], Tensor]:
        """Do as `forward`; return the output, the encoder's maps, and the map that was classified."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        decoded = self.decode(features, canvas_of(x))
        logits = self.classifier(self.dropout(decoded))
        return SemanticLogits(logits, canvas=canvas_of(x), aux=auxiliary(self, features)), features, decoded


def decoder_plan(encoder: PyramidEncoder, steps: int) -> list[tuple[int, int]]:
    """Return (stride, skip channels) of each decoder step's result, deepest first.

    The decoder visits each encoder map upwards, then doubles without a skip until stride 1. So an encoder that starts
    at stride 4 (a Mix Transformer) has no skip at strides 2 and 1.
    """
    plan = list(zip(encoder.strides[-2::-1], encoder.channels[-2::-1], strict=True))
    while plan[-1][0] > 1:
        plan.append((plan[-1][0] // 2, 0))
    if not 1 <= steps <= len(plan):
        raise UsageError(
            f"decoder_channels has {steps} entries; an encoder of strides {encoder.strides} takes 1 to {len(plan)}"
        )
    return plan[:steps]


def canvas_of(x: Tensor) -> tuple[int, int]:
    """Return the size of the padded image that the logits cover."""
    return (x.shape[-2], x.shape[-1])


def auxiliary(net: PlainUNet | UNet, features: list[Tensor]) -> dict[str, Tensor]:
    """Return the logits of the auxiliary heads while training, else nothing."""
    heads = {"fcn": (net.aux_head, 2), "presence": (net.presence_head, 1)} if net.training else {}
    return {name: head(features[-level]) for name, (head, level) in heads.items() if head is not None}


def auxiliary_names(net: PlainUNet | UNet) -> tuple[str, ...]:
    """Return the names of the auxiliary logits that training gets."""
    heads = {"fcn": net.aux_head, "presence": net.presence_head}
    return tuple(name for name, head in heads.items() if head is not None)


def build(config: UNetConfig) -> PlainUNet | UNet:
    """Make the network: the paper's, or one on a named encoder."""
    if config.encoder is None:
        return PlainUNet(config)
    return UNet(config, create_encoder(config.encoder, in_channels=config.in_channels))


ARCHITECTURE = Architecture(
    name="unet",
    title="U-Net",
    paper="https://arxiv.org/abs/1505.04597",
    tasks=("semantic",),
    output=SemanticLogits,
    config=UNetConfig,
    build=build,
    tiny={"width": 4},
)
