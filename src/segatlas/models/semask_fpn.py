"""SeMask-FPN: a Swin Transformer whose stages know the classes, and a Semantic FPN's head on its maps.

Paper: Jain et al. 2021, "SeMask: Semantically Masked Transformers for Semantic Segmentation",
https://arxiv.org/abs/2112.12782.

Idea: behind the blocks of each stage a semantic layer scores the classes for every token, and tokens that score alike
tell each other what they hold. So the encoder's maps carry meaning before any decoder; the scores of the four stages,
summed, are trained beside the head's.

Letters: N batch, C image channels, K classes, H W image, h w map of a stage, D its channels, p side of a window in
tokens, W windows of a map, T = p p tokens of a window (or h w of the whole map).

How ours differs: nothing in the numbers, which are the authors' (despite its name there is no pyramid: the head takes
the encoder's maps as they are). Semantic layers stand beside the encoder, `semantic.{i}`, so that it is a plain Swin
Transformer, which takes published weights. The factor of attention, gamma, starts at zero; the matrix before it does
not, or neither would learn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.swin import SwinTransformer, WindowLayout
from segatlas.errors import UsageError
from segatlas.layers.fpn import FPNHead
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig, DenseNetwork
from segatlas.structures import SemanticLogits

WINDOWED_STAGES = 2
"""Stages whose semantic attention stays within windows in any case."""

WIDE = (96, 192)
FEW_CLASSES = 19
"""Channels of the first stage with which, for more than so many classes, the last stages look at the whole map."""


@dataclass(frozen=True, kw_only=True)
class SeMaskFPNConfig(DenseConfig):
    """Settings of a SeMask-FPN, besides those of `DenseConfig`.

    aux: also train the semantic layers' scores, named "semantic".
    channels: decoder width.
    windowed: semantic attention of the last two stages stays within windows, too; None = as published, which is so for
        19 classes and fewer, and for encoders whose first stage has neither 96 nor 192 channels.
    """

    encoder: EncoderSpec = EncoderSpec(name="swin_tiny")
    channels: int = 256
    windowed: bool | None = None


class SemanticAttention(nn.Module):
    """Scores of the classes for each token, and attention by them: `gamma` times it is added to the tokens."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.query = TokenLinear(width, classes)
        self.key = TokenLinear(width, classes)
        self.value = TokenLinear(width, width)
        self.proj = TokenLinear(width, width)
        self.dropout = nn.Dropout(0.1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, T, D) to the same shape, and to scores (B, T, K)."""
        scores = self.query(x)
        key, value = self.key(x)[:, None], self.value(x)[:, None]
        attended = F.scaled_dot_product_attention(scores[:, None], key, value, scale=1.0)  # (B, 1, T, D)
        return x + self.gamma * self.dropout(self.proj(attended[:, 0])), scores


class SemanticLayer(nn.Module):
    """Norm, then semantic attention within windows, or of all tokens; nothing is added around the norm."""

    def __init__(self, width: int, classes: int, *, window: int | None, eps: float):
        super().__init__()
        self.window = window
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attn = SemanticAttention(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, h, w, D) to the same shape, and to scores (N, K, h, w)."""
        x = self.norm(x)
        grid = x.shape[1:3]
        if self.window is None:
            tokens, scores = self.attn(x.flatten(1, 2))
            tokens, scores = tokens.unflatten(1, grid), scores.unflatten(1, grid)
        else:
            layout = WindowLayout.of(x.shape, self.window, 0, x.device)
            padded = F.pad(x.flatten(0, 2), (0, 0, 1, 0))  # (1 + N h w, D)
            windows = F.embedding(layout.places, padded).unflatten(0, (-1, self.window**2))  # (N W, T, D)
            tokens, scores = (
                F.embedding(layout.back, y.flatten(0, 1)).reshape(*x.shape[:3], y.shape[2]) for y in self.attn(windows)
            )
        return tokens, scores.permute(0, 3, 1, 2)


class SeMaskFPN(DenseNetwork):
    """Stages with semantic layers, sum of their maps at the finest size, 1x1 classifier: logits at stride 4."""

    def __init__(self, config: SeMaskFPNConfig):
        super().__init__(config)
        if not isinstance(self.encoder, SwinTransformer):
            raise UsageError(f"encoder = {config.encoder}: expected a Swin Transformer, such as swin_tiny")
        self.has_semantic = config.aux
        norms = [self.encoder.get_submodule(f"norm{index}") for index in range(len(self.encoder.channels))]
        windowed = windowed_as_published(self.encoder.channels[0], config.num_classes)
        windowed = windowed if config.windowed is None else config.windowed
        self.semantic = nn.ModuleList()
        for index, width in enumerate(self.encoder.channels):
            window = self.encoder.window if windowed or index < WINDOWED_STAGES else None
            eps = getattr(norms[index], "eps", 1e-5)
            self.semantic.append(SemanticLayer(width, config.num_classes, window=window, eps=eps))
        init_weights(self.semantic)
        strides = self.encoder.strides
        self.head = FPNHead(self.encoder.channels, config.channels, strides=strides, align_corners=False)
        self.add_classifier(replace(config, aux=False), config.channels, self.head)

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Names of the auxiliary logits that training gets."""
        return ("semantic",) if self.has_semantic else ()

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to the map (N, D, h, w) of each stage, then the scores (N, K, h, w) of each."""
        encoder: SwinTransformer = self.encoder  # type: ignore[assignment]
        x = encoder.patch_embed(x)
        maps, scores = [], []
        for index, (layer, semantic) in enumerate(zip(encoder.layers, self.semantic, strict=True)):
            x, of_stage = semantic(encoder.run_stage(layer, x))
            maps.append(encoder.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2))
            scores.append(of_stage)
        return [*maps, *scores]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map what `encode` gives to the map before the classifier: (N, D, h, w)."""
        out: Tensor = self.head(features[: len(self.semantic)])
        return out

    def aux(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Map what `encode` gives to auxiliary logits: the sum of the scores at the finest size."""
        if not self.has_semantic:
            return {}
        total, *coarser = features[len(self.semantic) :]
        for steps, x in enumerate(coarser, start=1):
            for _ in range(steps):
                x = upsampled(x, (2 * x.shape[-2], 2 * x.shape[-1]))
            total = total + upsampled(x, (total.shape[-2], total.shape[-1]))
        return {"semantic": total}


def upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (N, K, h, w), bilinear."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def windowed_as_published(width: int, classes: int) -> bool:
    """Tell whether all semantic layers look within windows in the published networks.

    Args:
        width: channels of the first stage.
        classes: K.
    """
    return width not in WIDE or classes <= FEW_CLASSES


_WINDOW_12 = {"encoder_options": {"window": 12}}

ARCHITECTURE = Architecture(
    name="semask_fpn",
    title="SeMask-FPN",
    paper="https://arxiv.org/abs/2112.12782",
    tasks=("semantic",),
    output=SemanticLogits,
    config=SeMaskFPNConfig,
    build=SeMaskFPN,
    variants={
        "semask_fpn_t": {"encoder": "swin_tiny"},
        "semask_fpn_s": {"encoder": "swin_small"},
        "semask_fpn_b": {"encoder": "swin_base", **_WINDOW_12},
        "semask_fpn_l": {"encoder": "swin_large", **_WINDOW_12},
    },
    tiny={"encoder": "swin_w8", "channels": 8, "aux": True},
)
