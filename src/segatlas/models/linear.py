"""Linear: a plain vision transformer and a 1x1 convolution, which show what the transformer knows already.

Paper: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision", section 7.4,
https://arxiv.org/abs/2304.07193.

Idea: a transformer that was trained without labels gives each patch of the image a token. A classifier of one layer
over these tokens, usually with the transformer frozen, says how much of the meaning of the patches is in them.

Letters: N batch, C image channels, K classes, H W image, h w grid of patches, D width of a token, B blocks taken.

How ours differs: the authors pad the image on all sides to whole patches, ours right and bottom, as everywhere here.
Batch norm is torch's; training on several devices makes it a synchronised one, as theirs is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.encoders.contract import Tokens
from segatlas.encoders.spec import TokenEncoderSpec, create_token_encoder
from segatlas.errors import UsageError
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Settings of a linear classifier over a plain vision transformer.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a plain vision transformer, and its options.
    blocks: how many of the encoder's last blocks give their tokens, B: 1 is the paper's "lin.", 4 its "+ms".
    dropout: fraction of channels dropped before the classifier while training.
    """

    num_classes: int
    in_channels: int = 3
    encoder: TokenEncoderSpec = TokenEncoderSpec(name="vit_small_patch14_dinov2")
    blocks: int = 1
    dropout: float = 0.0


class Linear(nn.Module):
    """Plain transformer, batch norm of its last blocks' tokens, 1x1 classifier: logits at the stride of a patch."""

    def __init__(self, config: LinearConfig):
        super().__init__()
        self.encoder = create_token_encoder(config.encoder, in_channels=config.in_channels)
        require_at_least(config, blocks=1)
        if config.blocks > (depth := len(self.encoder.blocks)):
            raise UsageError(f"blocks: got {config.blocks}, but {config.encoder} has {depth}")
        self.at = self.encoder.block_indices(range(-config.blocks, 0))
        self.norm = nn.BatchNorm2d(config.blocks * self.encoder.width)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.blocks * self.encoder.width, config.num_classes, kernel_size=1)
        for part in (self.norm, self.classifier):
            init_weights(part)

    def decode(self, tokens: Tokens) -> Tensor:
        """Map the tokens of B blocks to the map before the classifier: (N, B * D, h, w)."""
        out: Tensor = self.norm(torch.cat(tokens.maps(), dim=1))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        tokens = self.encoder(x, at=self.at)  # patches (N, h * w, D) of each block
        logits = self.classifier(self.dropout(self.decode(tokens)))
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="linear",
    title="Linear",
    paper="https://arxiv.org/abs/2304.07193",
    tasks=("semantic",),
    output=SemanticLogits,
    config=LinearConfig,
    build=Linear,
    variants={
        f"linear_dinov2_{size}": {"encoder": f"vit_{size}_patch14_dinov2"}
        for size in ("small", "base", "large", "giant")
    },
    tiny={"encoder": "test_vit", "encoder_options": {"depth": 2}, "blocks": 2, "dropout": 0.1},
)
