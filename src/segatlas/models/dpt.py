"""DPT: the dense prediction transformer.

Paper: Ranftl et al. 2021, "Vision Transformers for Dense Prediction", https://arxiv.org/abs/2103.13413.

Idea: a plain transformer keeps one grid through all its blocks. Tokens of four depths are reassembled into maps of four
sizes, the earliest the finest, with what the class token knows mixed into each patch. Convolutional blocks fuse them
from the coarsest on, and double the size each time.

Letters: N batch, C image channels, K classes, H W image, h w grid of patches, L = h w, E width of a token, R_i width of
the map of level i, D decoder width.

How ours differs: nothing in the numbers. Elsewhere the class token is copied to every patch and both go through one
matrix; here its half of the product is made once an image. The 1x1 convolution of a fusion block is computed before the
upsampling that it follows elsewhere, on a fourth of the pixels. The default form is MMSegmentation's; Hugging Face's
(the authors') and segmentation-models-pytorch's differ in `coarsest_unit`, `doubled_logits` and the encoder's options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import Tokens
from segatlas.encoders.spec import TokenEncoderSpec, create_token_encoder
from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class DPTConfig:
    """Settings of a DPT.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a plain vision transformer, and its options.
    blocks: which of its blocks give their tokens, counted from 0, one a level.
    readout: what becomes of the class token: "project", through one matrix with each patch; "add", to each patch (the
        mean of all tokens before the patches); "ignore".
    level_channels: widths of the levels' maps, R_i.
    finest_scale: height and width of the first level's map over those of the grid; each next level has half of that.
    channels: width of the decoder, D.
    fusion_norm: convolutions of residual units have batch norm.
    fusion_bias: they have a bias.
    coarsest_unit: the coarsest map goes through two residual units, as the others do (segmentation-models-pytorch).
    doubled_logits: logits are upsampled to twice their size with aligned corners, before they are brought to the
        image's (the authors, Hugging Face, segmentation-models-pytorch).
    dropout: fraction of channels dropped before the classifier while training.
    aux: also train an FCN head, named "fcn", on the decoder's last map (the authors, Hugging Face).
    """

    num_classes: int
    in_channels: int = 3
    encoder: TokenEncoderSpec = TokenEncoderSpec(name="vit_base")
    blocks: tuple[int, ...] = (2, 5, 8, 11)
    readout: Literal["project", "add", "ignore"] = "project"
    level_channels: tuple[int, ...] = (96, 192, 384, 768)
    finest_scale: int = 4
    channels: int = 256
    fusion_norm: bool = True
    fusion_bias: bool = False
    coarsest_unit: bool = False
    doubled_logits: bool = False
    dropout: float = 0.1
    aux: bool = False


class Readout(nn.Module):
    """Patch and class token through one matrix, then GELU. Parameters: `project` (E, 2E), (E, E) without a token."""

    def __init__(self, width: int, *, has_prefix: bool):
        super().__init__()
        self.project = nn.Linear((1 + has_prefix) * width, width)

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        """Map patches (N, E, h, w) and the tokens before them (N, P, E), the class token first, to (N, E, h, w)."""
        own, *of_class = self.project.weight[:, :, None, None].split(x.shape[1], dim=1)  # (E, E, 1, 1) each
        out = F.conv2d(x, own, self.project.bias)
        for kernel in of_class:
            out = out + F.conv2d(prefix[:, 0, :, None, None], kernel)
        return F.gelu(out)


class AddedReadout(nn.Module):
    """Patches plus the mean of the tokens before them."""

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        """Map patches (N, E, h, w) and the tokens before them (N, P, E) to (N, E, h, w)."""
        return x + prefix.mean(dim=1)[:, :, None, None]


class IgnoredReadout(nn.Module):
    """The patches alone."""

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        """Return the patches."""
        return x


class Reassemble(nn.Module):
    """The tokens of one block as a map of another size and D channels.

    Parameters: `readout`; `project`, 1x1 to R; `resize`, a transposed convolution that makes the map larger, or a 3x3
    one that makes it smaller; `convolve`, 3x3 to D.
    """

    def __init__(self, config: DPTConfig, width: int, channels: int, scale: float, *, has_prefix: bool):
        super().__init__()
        self.readout: nn.Module
        if config.readout == "project":
            self.readout = Readout(width, has_prefix=has_prefix)
        else:
            self.readout = AddedReadout() if config.readout == "add" else IgnoredReadout()
        self.project = nn.Conv2d(width, channels, kernel_size=1)
        self.resize = resizing(channels, scale)
        self.convolve = nn.Conv2d(channels, config.channels, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        """Map patches (N, E, h, w) and the tokens before them (N, P, E) to (N, D, scale h, scale w)."""
        out: Tensor = self.convolve(self.resize(self.project(self.readout(x, prefix))))
        return out


class ResidualUnit(nn.Module):
    """Twice ReLU, 3x3 convolution and batch norm, added to the input."""

    def __init__(self, config: DPTConfig):
        super().__init__()
        width = config.channels
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=config.fusion_bias)
        self.bn1 = BatchNorm2d(width) if config.fusion_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=config.fusion_bias)
        self.bn2 = BatchNorm2d(width) if config.fusion_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        out: Tensor = self.bn1(self.conv1(F.relu(x)))
        return x + self.bn2(self.conv2(F.relu(out, inplace=True)))


class Fusion(nn.Module):
    """Add a level's map to what came from the coarser ones, refine, double the size.

    Parameters: `unit1` over the level's map, `unit2` over the sum, `project`, 1x1.
    """

    def __init__(self, config: DPTConfig, *, has_unit1: bool):
        super().__init__()
        self.unit1 = ResidualUnit(config) if has_unit1 else nn.Identity()
        self.unit2 = ResidualUnit(config)
        self.project = nn.Conv2d(config.channels, config.channels, kernel_size=1)

    def forward(self, level: Tensor, coarser: Tensor | None) -> Tensor:
        """Map a level (N, D, h, w) and what came from coarser ones to (N, D, 2h, 2w).

        The two differ in size where a grid had an odd side and was halved; the level is then resized.
        """
        if coarser is not None:
            level = F.interpolate(level, size=coarser.shape[-2:], mode="bilinear", align_corners=False)
            x = coarser + self.unit1(level)
        else:
            x = self.unit1(level)
        return doubled(self.project(self.unit2(x)))


class DPT(nn.Module):
    """Plain transformer, reassembled levels, fusion, 3x3 convolution, 1x1 classifier: logits at stride 2, or 1."""

    def __init__(self, config: DPTConfig):
        super().__init__()
        require_at_least(config, finest_scale=1)
        if not 1 <= len(config.blocks) == len(config.level_channels):
            expected = f"expected as many as level_channels has: {len(config.level_channels)}"
            raise UsageError(f"blocks: got {len(config.blocks)}, {expected}")
        self.encoder = create_token_encoder(config.encoder, in_channels=config.in_channels)
        self.at = self.encoder.block_indices(config.blocks)
        has_prefix = self.encoder.prefix_tokens > 0
        if config.readout == "add" and not has_prefix:
            raise UsageError("readout: got 'add', but the encoder has no tokens besides the patches; expected 'ignore'")
        self.reassemble = nn.ModuleList(
            Reassemble(config, self.encoder.width, channels, config.finest_scale / 2**level, has_prefix=has_prefix)
            for level, channels in enumerate(config.level_channels)
        )
        self.fusions = nn.ModuleList(
            Fusion(config, has_unit1=index > 0 or config.coarsest_unit) for index in range(len(config.blocks))
        )
        self.refine = ConvBNReLU(config.channels, config.channels)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.channels, config.num_classes, kernel_size=1)
        self.doubled_logits = config.doubled_logits
        self.aux_head = FCNHead(config.channels, config.num_classes, channels=config.channels) if config.aux else None
        for part in (self.reassemble, self.fusions, self.refine, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def fuse(self, tokens: Tokens) -> Tensor:
        """Map the tokens of the chosen blocks to the decoder's last map, (N, D, 8h, 8w) for the usual four levels."""
        given = zip(self.reassemble, tokens.maps(), tokens.prefix, strict=True)
        levels = [reassemble(x, prefix) for reassemble, x, prefix in given]
        x: Tensor | None = None
        for fusion, level in zip(self.fusions, reversed(levels), strict=True):
            x = fusion(level, x)
        assert x is not None
        return x

    def decode(self, tokens: Tokens) -> Tensor:
        """Map the tokens of the chosen blocks to the map before the classifier."""
        out: Tensor = self.refine(self.fuse(tokens))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, 8h, 8w), twice that where they are doubled."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        fused = self.fuse(self.encoder(x, at=self.at))
        for_aux = fused if self.aux_head is not None and self.training else None
        fused = self.refine(fused)  # as large as the map before, which nothing else holds any more
        logits = self.classifier(self.dropout(fused))
        if self.doubled_logits:
            logits = doubled(logits)
        aux = {} if self.aux_head is None or for_aux is None else {"fcn": self.aux_head(for_aux)}
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]), aux=aux)


def resizing(channels: int, scale: float) -> nn.Module:
    """Return what makes a map (N, channels, h, w) one of scale h x scale w."""
    if scale > 1:
        return nn.ConvTranspose2d(channels, channels, kernel_size=int(scale), stride=int(scale))
    if scale == 1:
        return nn.Identity()
    return nn.Conv2d(channels, channels, kernel_size=3, stride=int(1 / scale), padding=1)


def doubled(x: Tensor) -> Tensor:
    """Upsample (N, D, h, w) to (N, D, 2h, 2w); corners stay where they are."""
    return F.interpolate(x, size=(2 * x.shape[-2], 2 * x.shape[-1]), mode="bilinear", align_corners=True)


LARGE = {"blocks": (5, 11, 17, 23), "level_channels": (256, 512, 1024, 1024)}
"""What the published networks on ViT-L have in common."""

AUTHORS: dict[str, Any] = {"doubled_logits": True, "aux": True}
"""The authors' form, which is Hugging Face's."""

_MMSEG = {"image_size": (224, 224), "position_antialias": False, "final_norm": False, "norm_eps": 1e-5}
_HF = {
    "image_size": (384, 384),
    "position_antialias": False,
    "position_resize": "bilinear",
    "final_norm": False,
    "norm_eps": 1e-12,
}

ARCHITECTURE = Architecture(
    name="dpt",
    title="DPT",
    paper="https://arxiv.org/abs/2103.13413",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DPTConfig,
    build=DPT,
    variants={
        "dpt_vit_b": {"encoder": "vit_base", "encoder_options": _MMSEG},
        "dpt_vit_l": {"encoder": "vit_large", "encoder_options": _MMSEG, **LARGE},
        "dpt_vit_l_hf": {"encoder": "vit_large", "encoder_options": _HF, **LARGE, **AUTHORS},
    },
    tiny={
        "encoder": "vit_w32",
        "encoder_options": {"depth": 2, "final_norm": False},
        "blocks": (0, 0, 1, 1),
        "level_channels": (4, 4, 8, 8),
        "channels": 8,
        "aux": True,
    },
)
