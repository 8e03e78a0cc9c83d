"""SETR: a plain vision transformer as the encoder of a segmentation network, under three decoders.

Paper: Zheng et al. 2021, "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers",
https://arxiv.org/abs/2012.15840.

Idea: a transformer over patches sees the whole image in every layer, so no pyramid is needed; its last tokens are
upsampled at once (naive), by a convolution and a factor of two at a time (PUP, progressive upsampling), or after tokens
of several depths were added up (MLA, multi-level aggregation).

Letters: N batch, C image channels, K classes, H W image, h w grid of patches, L = h w, E width of a token, D decoder
width, A width of a branch of MLA.

How ours differs: nothing in the numbers, which are MMSegmentation's. The classifier, a 1x1 convolution, is computed
before the upsampling that it follows there: on a fourth of the pixels in PUP, on a sixteenth in the others. MLA's four
branches are never upsampled: their part in the logits is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import Tokens
from segatlas.encoders.spec import TokenEncoderSpec, create_token_encoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

NORM_EPS = 1e-6
AUX_SCALE = 4
"""What the auxiliary heads of naive and PUP upsample by, after each convolution."""


@dataclass(frozen=True, kw_only=True)
class SETRConfig:
    """Settings of a SETR.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a plain vision transformer, and its options.
    blocks: which of its blocks give their tokens, counted from 0. The last of them is decoded by "up", all by "mla".
    decoder: "up", convolutions and upsampling in turn (naive and PUP), or "mla".
    channels: width of the decoder, D.
    convs: convolutions of "up".
    kernel_size: of these, and of those of its auxiliary heads.
    scale: what is upsampled by after each of them, and once by "mla".
    branch_channels: width of each branch of "mla", A.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how maps and logits are upsampled.
    aux: also train a head on each block before the last ("up"), or a classifier on each map of "mla". They are called
        as the paper calls the tokens they begin with: "z10" for those of block 9, the tenth.
    aux_convs: convolutions of each auxiliary head of "up".
    """

    num_classes: int
    in_channels: int = 3
    encoder: TokenEncoderSpec = TokenEncoderSpec(name="vit_large")
    blocks: tuple[int, ...] = (9, 14, 19, 23)
    decoder: Literal["up", "mla"] = "up"
    channels: int = 256
    convs: int = 1
    kernel_size: Literal[1, 3] = 1
    scale: int = 4
    branch_channels: int = 128
    dropout: float = 0.0
    align_corners: bool = False
    aux: bool = False
    aux_convs: int = 2


class UpDecoder(nn.Module):
    """Norm, then convolutions, upsampled between them; the upsampling after the last is left to who classifies.

    Parameters: `norm` over E; `convs`.
    """

    def __init__(self, config: SETRConfig, width: int, *, convs: int, scale: int):
        super().__init__()
        self.scale, self.align_corners = scale, config.align_corners
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        widths = [width, *[config.channels] * convs]
        self.convs = nn.ModuleList(ConvBNReLU(*pair, config.kernel_size) for pair in pairwise(widths))

    def levels(self, tokens: Tokens) -> list[Tensor]:
        """Return the maps (N, E, h, w) of the blocks; auxiliary heads begin with those before the last."""
        return tokens.maps()

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map the last of `levels` to (N, D, s h, s w), s being scale ** (convs - 1)."""
        x = normed(levels[-1], self.norm)
        first, *further = self.convs
        x = first(x)
        for conv in further:
            x = conv(upsampled(x, self.scale, align_corners=self.align_corners))
        return x


class MLADecoder(nn.Module):
    """Maps of several depths, each added to those of later blocks, each through convolutions of its own.

    Parameters: `norms` over E and `project`, 1x1 to D, in the order of the blocks; from the last block's map on:
    `extract`, 3x3, and `branches` of two 3x3 convolutions to A.
    """

    def __init__(self, config: SETRConfig, width: int):
        super().__init__()
        count, channels, branch = len(config.blocks), config.channels, config.branch_channels
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=NORM_EPS) for _ in range(count))
        self.project = nn.ModuleList(ConvBNReLU(width, channels, 1) for _ in range(count))
        self.extract = nn.ModuleList(ConvBNReLU(channels, channels) for _ in range(count))
        self.branches = nn.ModuleList(
            nn.Sequential(ConvBNReLU(channels, branch), ConvBNReLU(branch, branch)) for _ in range(count)
        )

    def levels(self, tokens: Tokens) -> list[Tensor]:
        """Return the added maps (N, D, h, w), that of the last block alone first; auxiliary heads begin with these."""
        maps = zip(tokens.maps(), self.norms, self.project, strict=True)
        projected = [project(normed(x, norm)) for x, norm, project in maps][::-1]
        return [extract(x) for x, extract in zip(accumulate(projected), self.extract, strict=True)]

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map `levels` to (N, levels * A, h, w)."""
        return torch.cat([branch(x) for branch, x in zip(self.branches, levels, strict=True)], dim=1)


class UpHead(nn.Module):
    """A decoder with a classifier of its own, for training."""

    def __init__(self, config: SETRConfig, width: int):
        super().__init__()
        self.decoder = UpDecoder(config, width, convs=config.aux_convs, scale=AUX_SCALE)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, E, h, w) to logits (N, K, s h, s w), s being 4 ** (aux_convs - 1)."""
        logits: Tensor = self.classifier(self.decoder([x]))
        return logits


Parts = tuple[UpDecoder | MLADecoder, int, dict[str, nn.Module]]
"""A decoder, the channels that it gives, and auxiliary heads by name, in the order of the decoder's `levels`."""


class SETR(nn.Module):
    """Plain transformer, decoder, 1x1 classifier, upsampling: logits at stride 4 (naive, MLA) or 1 (PUP)."""

    def __init__(self, config: SETRConfig):
        super().__init__()
        require_at_least(config, convs=1, aux_convs=1, scale=1)
        self.encoder = create_token_encoder(config.encoder, in_channels=config.in_channels)
        self.at = tuple(self.encoder.block_indices(config.blocks))
        self.scale, self.align_corners = config.scale, config.align_corners
        self.decoder, channels, aux_heads = DECODERS[config.decoder](
            replace(config, blocks=self.at), self.encoder.width
        )
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(channels, config.num_classes, kernel_size=1)
        self.aux_heads = nn.ModuleDict(aux_heads if config.aux else {})
        for part in (self.decoder, self.classifier, self.aux_heads):
            init_weights(part)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary logits in training."""
        return tuple(self.aux_heads)

    def decode(self, tokens: Tokens) -> Tensor:
        """Map the tokens of the chosen blocks to the map before the classifier."""
        out: Tensor = self.decoder(self.decoder.levels(tokens))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, s h, s w), s as `SETRConfig.scale` and `convs` say."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        levels = self.decoder.levels(self.encoder(x, at=self.at))
        logits = self.classifier(self.dropout(self.decoder(levels)))
        logits = upsampled(logits, self.scale, align_corners=self.align_corners)
        heads = zip(self.aux_heads.items(), levels, strict=False) if self.training else ()
        aux = {name: head(level) for (name, head), level in heads}
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), Resample(align_corners=self.align_corners), aux)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Norm the channels of a map (N, E, h, w)."""
    out: Tensor = norm(x.permute(0, 2, 3, 1))
    return out.permute(0, 3, 1, 2)


def upsampled(x: Tensor, scale: int, *, align_corners: bool) -> Tensor:
    """Upsample (N, D, h, w) to (N, D, scale h, scale w)."""
    return F.interpolate(
        x, size=(scale * x.shape[-2], scale * x.shape[-1]), mode="bilinear", align_corners=align_corners
    )


def up_decoder(config: SETRConfig, width: int) -> Parts:
    """Make the decoder of naive and PUP, with heads on the blocks before the last."""
    decoder = UpDecoder(config, width, convs=config.convs, scale=config.scale)
    return decoder, config.channels, {f"z{block + 1}": UpHead(config, width) for block in config.blocks[:-1]}


def mla_decoder(config: SETRConfig, width: int) -> Parts:
    """Make the decoder of MLA, with a classifier on each of its levels."""
    channels = len(config.blocks) * config.branch_channels
    classifiers: dict[str, nn.Module] = {
        f"z{block + 1}": nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        for block in reversed(config.blocks)
    }
    return MLADecoder(config, width), channels, classifiers


DECODERS: dict[str, Callable[[SETRConfig, int], Parts]] = {
    "up": up_decoder,
    "mla": mla_decoder,
}


def _published(**fields: Any) -> dict[str, Any]:
    class_token = fields.get("decoder") != "mla"
    options = {
        "image_size": (512, 512),
        "class_token": class_token,
        "position_resize": "bilinear",
        "position_antialias": False,
        "final_norm": False,
    }
    return {"encoder": "vit_large", "encoder_options": options, **fields}


ARCHITECTURE = Architecture(
    name="setr",
    title="SETR",
    paper="https://arxiv.org/abs/2012.15840",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SETRConfig,
    build=SETR,
    variants={
        "setr_naive": _published(),
        "setr_pup": _published(convs=4, kernel_size=3, scale=2),
        "setr_mla": _published(decoder="mla", blocks=(5, 11, 17, 23)),
    },
    tiny={
        "encoder": "vit_w32",
        "encoder_options": {"depth": 2, "final_norm": False},
        "blocks": (0, 1),
        "channels": 8,
        "convs": 2,
        "kernel_size": 3,
        "scale": 2,
        "aux": True,
        "aux_convs": 1,
    },
)
