"""Segmenter: a plain vision transformer, and a token for each class among the patches.

Paper: Strudel et al. 2021, "Segmenter: Transformer for Semantic Segmentation", https://arxiv.org/abs/2105.05633.

Idea: one token a class joins the patches in two more transformer blocks. A patch then belongs to the class whose token
points where its own does. The linear decoder, a classifier on each patch, is the paper's baseline.

Letters: N batch, C image channels, K classes, H W image, h w grid of patches, L = h w, D width.

How ours differs: nothing in the numbers, which are MMSegmentation's: its mask decoder norms the last blocks' tokens
once more, and takes a layer norm over the K products of a patch. Logits stay at the stride of a patch; what is left is
one upsampling to the image, stretched over it where its sides are no multiples of the patch, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import Tokens
from segatlas.encoders.spec import TokenEncoderSpec, create_token_encoder
from segatlas.encoders.vit import Block, Positions, VisionTransformerForm
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of

HEAD_WIDTH = 64
"""Channels of an attention head, in all published decoders."""


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """Settings of a Segmenter.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a plain vision transformer, and its options.
    layers: transformer blocks of the mask decoder; 0 = the linear decoder.
    heads: attention heads of the mask decoder; None = one for every 64 channels.
    decoder_drop_path: stochastic depth of the mask decoder's last block while training.
    dropout: fraction of channels dropped before the linear decoder while training.
    """

    num_classes: int
    in_channels: int = 3
    encoder: TokenEncoderSpec = TokenEncoderSpec(name="vit_small")
    layers: int = 2
    heads: int | None = None
    decoder_drop_path: float = 0.1
    dropout: float = 0.0


class MaskDecoder(nn.Module):
    """Patches and class tokens through transformer blocks.

    Parameters: `class_tokens` (1, K, D); `project`, of the patches; `blocks`; `norm`.
    """

    def __init__(self, width: int, num_classes: int, *, layers: int, heads: int, drop_path: float):
        super().__init__()
        form = VisionTransformerForm(width=width, depth=layers, heads=heads, norm_eps=1e-5)
        rates = torch.linspace(0, drop_path, layers, device="cpu").tolist()
        self.project = TokenLinear(width, width)
        self.class_tokens = nn.Parameter(torch.empty(1, num_classes, width))
        self.blocks = nn.ModuleList(Block(form, qkv_bias=True, dropout=0.0, drop_path=r, grid=None) for r in rates)
        self.norm = nn.LayerNorm(width)
        init_weights(self)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map the encoder's patches (N, L, D) on a grid (h, w) to the tokens of classes and patches (N, K + L, D)."""
        x = torch.cat([self.class_tokens.expand(patches.shape[0], -1, -1), self.project(patches)], dim=1)
        for block in self.blocks:
            x = block(x, Positions(grid))
        out: Tensor = self.norm(x)
        return out


class MaskClassifier(nn.Module):
    """How alike patches and classes are: cosines, with a norm over the classes of each patch.

    Parameters: `project_patches`, `project_classes`; `norm` over K.
    """

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.project_patches = TokenLinear(width, width, bias=False)
        self.project_classes = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens of classes and patches (N, K + L, D) to logits (N, L, K)."""
        classes = F.normalize(self.project_classes(x[:, : self.num_classes]), dim=2)
        patches = F.normalize(self.project_patches(x[:, self.num_classes :]), dim=2)
        logits: Tensor = self.norm(patches @ classes.transpose(1, 2))
        return logits


class SegmenterNet(nn.Module):
    """Plain transformer, mask or linear decoder: logits at the stride of a patch."""

    def __init__(self, config: SegmenterConfig):
        super().__init__()
        require_at_least(config, layers=0)
        self.encoder = create_token_encoder(config.encoder, in_channels=config.in_channels)
        width, classes = self.encoder.width, config.num_classes
        self.dropout = nn.Dropout2d(config.dropout)
        if config.layers:
            heads = config.heads or max(width // HEAD_WIDTH, 1)
            self.decoder: MaskDecoder | None = MaskDecoder(
                width, classes, layers=config.layers, heads=heads, drop_path=config.decoder_drop_path
            )
            self.classifier: nn.Module = MaskClassifier(width, classes)
        else:
            self.decoder = None
            self.classifier = nn.Conv2d(width, classes, kernel_size=1)
            init_weights(self.classifier)

    def decode(self, tokens: Tokens) -> Tensor:
        """Map the tokens of the encoder's last block to logits (N, K, h, w)."""
        if self.decoder is None:
            logits: Tensor = self.classifier(self.dropout(tokens.maps()[-1]))
            return logits
        masks: Tensor = self.classifier(self.decoder(tokens.patches[-1], tokens.grid))  # (N, L, K)
        return masks.transpose(1, 2).unflatten(2, tokens.grid)

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        return SemanticLogits(self.decode(self.encoder(x)), canvas=(x.shape[-2], x.shape[-1]))


def _published(size: str, side: int = 512, **fields: object) -> dict[str, object]:
    options = {"image_size": (side, side), "position_antialias": False, "drop_path": 0.1}
    return {"encoder": f"vit_{size}", "encoder_options": options, **fields}


ARCHITECTURE = Architecture(
    name="segmenter",
    title="Segmenter",
    paper="https://arxiv.org/abs/2105.05633",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SegmenterConfig,
    build=SegmenterNet,
    variants={
        "segmenter_t": _published("tiny"),
        "segmenter_s": _published("small"),
        "segmenter_b": _published("base"),
        "segmenter_l": _published("large", 640),
        "segmenter_s_linear": _published("small", layers=0),
    },
    tiny={"encoder": "vit_w32", "encoder_options": {"depth": 1}, "layers": 1},
)
