"""FastFCN: stride-8 features from an ordinary stride-32 encoder, under three heads.

Paper: Wu et al. 2019, "FastFCN: Rethinking Dilated Convolution in the Backbone for Semantic Segmentation",
https://arxiv.org/abs/1903.11816. Heads: pyramid pooling (Zhao et al. 2017, https://arxiv.org/abs/1612.01105), ASPP
(Chen et al. 2017, https://arxiv.org/abs/1706.05587), context encoding (Zhang et al. 2018,
https://arxiv.org/abs/1803.08904).

Idea: dilation makes an encoder slow. Joint pyramid upsampling (JPU) makes the fine map that dilation would have given
from the three last maps of an encoder that strides: upsampled to the same size, concatenated, through separable
convolutions of four dilations.

Letters: N batch, C image channels, K classes, H W image, h w map at stride 8, J JPU width, D head width, M code
words, P pixels of the map.

How ours differs: nothing in the numbers. Context encoding never builds the P x M x D differences between pixels and
code words: their squared lengths are |x|^2 - 2 x c + |c|^2, and their weighted sums A^T X - sum(A) c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.aspp import ASPP
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture
from segatlas.models.dense import HeadConfig
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

LEVELS = 3
DILATIONS = (1, 2, 4, 8)
PUBLISHED_DILATIONS = (1, 1, 2, 4)
"""MMSegmentation's form: the encoder strides to 32, and its layers dilate besides."""

PUBLISHED_ENCODER = {"encoder": "resnet50c", "encoder_options": {"dilations": PUBLISHED_DILATIONS}}


@dataclass(frozen=True, kw_only=True)
class FastFCNConfig(HeadConfig):
    """Settings of a FastFCN, besides those of `HeadConfig`.

    encoder: an encoder, its output stride and options, of which the three last maps are used.
    head: what looks at the JPU's map: "psp" pyramid pooling, "aspp", or "enc" context encoding.
    jpu_channels: width of the JPU, J.
    channels: width of the head, D.
    pool_scales: cells per side of each grid of pyramid pooling.
    rates: dilations of the ASPP's 3x3 convolutions.
    codes: code words of context encoding, M.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one. (Context encoding always trains which
        classes an image shows, named "presence".)
    aux_channels: its width; None = a quarter of its input's channels.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    head: Literal["psp", "aspp", "enc"] = "psp"
    jpu_channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    rates: tuple[int, ...] = (12, 24, 36)
    codes: int = 32


class DilatedBranch(nn.Module):
    """Separable 3x3 convolution: depthwise with batch norm, pointwise with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
        )
        self.depthwise_bn = BatchNorm2d(in_channels)
        self.pointwise = ConvBNReLU(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.pointwise(self.depthwise_bn(self.depthwise(x)))
        return out


class JPU(nn.Module):
    """Joint pyramid upsampling: the last three maps of an encoder as one of 4J channels at the finest's size."""

    def __init__(self, in_channels: tuple[int, ...], width: int, *, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.convs = nn.ModuleList(ConvBNReLU(channels, width) for channels in in_channels)
        self.branches = nn.ModuleList(
            DilatedBranch(len(in_channels) * width, width, dilation) for dilation in DILATIONS
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map maps (N, E_i, h_i, w_i), finest first, to (N, 4J, h, w)."""
        finest, *coarser = (conv(x) for conv, x in zip(self.convs, maps, strict=True))
        size, align = finest.shape[-2:], self.align_corners
        upsampled = [F.interpolate(x, size=size, mode="bilinear", align_corners=align) for x in coarser]
        x = torch.cat([finest, *upsampled], dim=1)  # (N, 3J, h, w)
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class ContextEncoding(nn.Module):
    """Describe an image by how its pixels lie around code words, and weight its channels by that description.

    Parameters: `codewords` (M, D), `scale` (M): how sharply a pixel belongs to a word.
    """

    def __init__(self, in_channels: int, channels: int, codes: int):
        super().__init__()
        self.fuse = ConvBNReLU(in_channels, channels)
        self.project = ConvBNReLU(channels, channels, 1)
        spread = 1 / (codes * channels) ** 0.5
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-spread, spread))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))
        self.norm = nn.BatchNorm1d(codes)
        self.gate = nn.Linear(channels, channels)

    def describe(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the image's description (N, D)."""
        pixels = self.project(x).flatten(2).transpose(1, 2)  # (N, P, D)
        words = self.codewords
        distance = pixels.square().sum(2, keepdim=True) - 2 * pixels @ words.T + words.square().sum(1)  # (N, P, M)
        assignment = (self.scale * distance).softmax(dim=2)
        residual = assignment.transpose(1, 2) @ pixels - assignment.sum(1).unsqueeze(2) * words  # (N, M, D)
        return F.relu(self.norm(residual)).mean(dim=1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, in_channels, h, w) to the weighted map (N, D, h, w) and the description (N, D)."""
        x = self.fuse(x)
        description = self.describe(x)
        weights = self.gate(description).sigmoid()[:, :, None, None]
        return F.relu(x + x * weights), description

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, D, h, w)."""
        return self.encode(x)[0]


class FastFCN(nn.Module):
    """Encoder, JPU, a head, 1x1 classifier: logits at stride 8."""

    def __init__(self, config: FastFCNConfig):
        super().__init__()
        self.encoder = create_encoder(config.encoder, in_channels=config.in_channels)
        self.align_corners = config.align_corners
        head = HEADS[config.head](config, len(DILATIONS) * config.jpu_channels)
        self.jpu = JPU(self.encoder.channels[-LEVELS:], config.jpu_channels, align_corners=config.align_corners)
        self.head = head
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.presence = nn.Linear(config.channels, config.num_classes) if isinstance(head, ContextEncoding) else None
        aux = (
            FCNHead(self.encoder.channels[-2], config.num_classes, channels=config.aux_channels) if config.aux else None
        )
        self.aux_head = aux
        for part in (self.jpu, self.head, self.classifier, self.presence, self.aux_head):
            if part is not None:
                init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary outputs in training."""
        heads = {"fcn": self.aux_head, "presence": self.presence}
        return tuple(name for name, head in heads.items() if head is not None)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        out: Tensor = self.head(self.jpu(features[-LEVELS:]))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        aux = {"fcn": self.aux_head(features[-2])} if self.aux_head is not None and self.training else {}
        if self.presence is not None and self.training:
            decoded, description = self.head.encode(self.jpu(features[-LEVELS:]))  # type: ignore[operator]
            aux["presence"] = self.presence(description)  # (N, K)
        else:
            decoded = self.decode(features)
        logits = self.classifier(self.dropout(decoded))
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def psp_head(config: FastFCNConfig, in_channels: int) -> nn.Module:
    """Return pyramid pooling."""
    return PPM(in_channels, config.channels, scales=config.pool_scales, align_corners=config.align_corners)


def aspp_head(config: FastFCNConfig, in_channels: int) -> nn.Module:
    """Return an ASPP with a 1x1 branch and dilated 3x3 branches, fused by a 3x3 convolution."""
    width = config.channels
    branches = [
        ConvBNReLU(in_channels, width, 1),
        *(ConvBNReLU(in_channels, width, dilation=rate) for rate in config.rates),
    ]
    return ASPP(branches, ConvBNReLU(in_channels, width, 1), PooledFuse(len(branches) * width, [width], width))


def encoding_head(config: FastFCNConfig, in_channels: int) -> nn.Module:
    """Return context encoding."""
    return ContextEncoding(in_channels, config.channels, config.codes)


HEADS: dict[str, Callable[[FastFCNConfig, int], nn.Module]] = {
    "psp": psp_head,
    "aspp": aspp_head,
    "enc": encoding_head,
}


ARCHITECTURE = Architecture(
    name="fastfcn",
    title="FastFCN",
    paper="https://arxiv.org/abs/1903.11816",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FastFCNConfig,
    build=FastFCN,
    variants={
        "fastfcn_psp": {**PUBLISHED_ENCODER, "head": "psp"},
        "fastfcn_aspp": {**PUBLISHED_ENCODER, "head": "aspp"},
        "fastfcn_enc": {**PUBLISHED_ENCODER, "head": "enc"},
    },
    tiny={"encoder": "resnet18_w8", "jpu_channels": 8, "channels": 8, "codes": 4, "head": "enc", "aux": True},
)
