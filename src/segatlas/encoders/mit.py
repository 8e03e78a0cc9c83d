"""Mix Transformer (MiT): the encoder of SegFormer.

Paper: Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
https://arxiv.org/abs/2105.15203.

Idea: a pyramid of transformer stages. Patches overlap, so borders stay smooth; keys and values are taken on a coarser
grid, so attention over fine maps is affordable; a 3x3 depthwise convolution in the feed-forward part tells where each
token stands, so there is no positional encoding and any image size works.

Letters: N batch, C image channels, H W image, h w map of a stage, D its channels, M attention heads, r its
reduction (keys and values on an h/r x w/r grid).

How ours differs: maps stay channels-last, (N, h, w, D), through a whole stage. Tokens, depthwise convolution and
reduction then work on the same memory, and none of the authors' transposing copies is left. Parameter names are theirs,
and so is the epsilon of the norms: 1e-6, but 1e-5 after patch embeddings and reductions. Other libraries have one
epsilon for all (1e-6 in MMSegmentation, 1e-5 in Hugging Face's), hence `norm_eps` and `embedding_norm_eps`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.ops.capture import larger, may_differ

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
STRIDES = (4, 8, 16, 32)
MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class MixTransformerSize:
    """Channels and blocks of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


SIZES: dict[str, MixTransformerSize] = {
    "mit_b0": MixTransformerSize(widths=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "mit_b1": MixTransformerSize(widths=(64, 128, 320, 512), depths=(2, 2, 2, 2)),
    "mit_b2": MixTransformerSize(widths=(64, 128, 320, 512), depths=(3, 4, 6, 3)),
    "mit_b3": MixTransformerSize(widths=(64, 128, 320, 512), depths=(3, 4, 18, 3)),
    "mit_b4": MixTransformerSize(widths=(64, 128, 320, 512), depths=(3, 8, 27, 3)),
    "mit_b5": MixTransformerSize(widths=(64, 128, 320, 512), depths=(3, 6, 40, 3)),
}


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution (where it dilates, one of stride 1), then layer norm."""

    def __init__(self, in_channels: int, width: int, *, kernel_size: int, stride: int, eps: float, dilation: int = 1):
        super().__init__()
        stride = stride if dilation == 1 else 1
        self.proj = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2 * dilation, dilation)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, h, w, D)."""
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map reduced r times in each direction.

    Where it dilates, the reducing convolution has stride 1, and the map keeps its size but for its padding.
    """

    def __init__(self, width: int, *, heads: int, reduction: int, eps: float, dilation: int = 1):
        super().__init__()
        self.heads, self.reduction, self.dilated = heads, reduction, dilation > 1
        self.q = TokenLinear(width, width)
        self.kv = TokenLinear(width, 2 * width)
        if reduction > 1:
            stride, padding = (1, reduction // 2 * dilation) if self.dilated else (reduction, 0)
            self.sr = nn.Conv2d(width, width, reduction, stride, padding, dilation)
            self.norm = nn.LayerNorm(width, eps=eps)
        self.proj = TokenLinear(width, width)

    def reduce(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to (N, h/r, w/r, D); a map smaller than r is padded with zeros to one cell."""
        if self.reduction == 1:
            return x
        missing_h, missing_w = (0, 0) if self.dilated else (larger(self.reduction - side, 0) for side in x.shape[1:3])
        if may_differ((missing_h, missing_w), (0, 0)):
            x = F.pad(x, (0, 0, 0, missing_w, 0, missing_h))
        out: Tensor = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        n, h, w, width = x.shape
        head = (self.heads, width // self.heads)
        q = self.q(x).reshape(n, h * w, *head).transpose(1, 2)  # (N, M, h w, D/M)
        keys_values = self.kv(self.reduce(x)).flatten(1, 2).unflatten(2, (2, *head))
        k, v = keys_values.permute(2, 0, 3, 1, 4)  # (N, M, h w / r², D/M) each
        x = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(n, h, w, width))
        return out


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution on a channels-last map."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=3, padding=dilation, dilation=dilation, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        out: Tensor = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class MixFFN(nn.Module):
    """The feed-forward part: widen, 3x3 depthwise convolution, GELU, narrow."""

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.fc1 = TokenLinear(width, MLP_RATIO * width)
        self.dwconv = DepthwiseConv(MLP_RATIO * width, dilation)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        out: Tensor = self.fc2(self.act(self.dwconv(self.fc1(x))))
        return out


class Block(nn.Module):
    """One transformer block: attention and feed-forward part, each behind a norm and added to its input."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        reduction: int,
        drop_path: float,
        eps: float,
        reduction_eps: float,
        dilation: int = 1,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = EfficientAttention(width, heads=heads, reduction=reduction, eps=reduction_eps, dilation=dilation)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MixFFN(width, dilation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class MixTransformer(PyramidEncoder):
    """Four stages at strides 4, 8, 16, 32; stage i is `patch_embed{i}`, `block{i}` (a list) and `norm{i}`.

    Args:
        size: widths and depths.
        in_channels: channels of the image.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        norm_eps: epsilon of the norms in blocks and after stages.
        embedding_norm_eps: epsilon of the norms after patch embeddings and reductions.
        output_stride: 8, 16 or 32; below 32 every spatial convolution of the last stage (16) or the last two (8)
            dilates instead of striding, as segmentation-models-pytorch has it.
        levels: see `PyramidOptions`.
    """

    def __init__(
        self,
        size: MixTransformerSize,
        *,
        in_channels: int = 3,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        embedding_norm_eps: float = 1e-5,
        output_stride: int = 32,
        levels: int | None = None,
    ):
        super().__init__()
        count = len(STRIDES) if levels is None else levels - 1
        self.channels = size.widths[:count]
        self.strides = tuple(min(stride, output_stride) for stride in STRIDES[:count])
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        inputs = (in_channels, *size.widths[:-1])
        for index, (width, depth) in enumerate(zip(self.channels, size.depths, strict=False)):
            dilation = STRIDES[index] // self.strides[index]
            kernel_size, stride = (7, 4) if index == 0 else (3, 2)
            eps = {"eps": norm_eps, "reduction_eps": embedding_norm_eps}
            embedding = PatchEmbedding(
                inputs[index],
                width,
                kernel_size=kernel_size,
                stride=stride,
                eps=embedding_norm_eps,
                dilation=dilation,
            )
            block = partial(Block, width, heads=HEADS[index], reduction=REDUCTIONS[index], dilation=dilation, **eps)
            setattr(self, f"patch_embed{index + 1}", embedding)
            setattr(self, f"block{index + 1}", nn.ModuleList(block(drop_path=next(rates)) for _ in range(depth)))
            setattr(self, f"norm{index + 1}", nn.LayerNorm(width, eps=norm_eps))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each stage, channels-last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.stages():
            x = self.run_stage(partial(run_stage_of_blocks, stage), x)
            features.append(x)
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages: patch embedding, blocks, norm."""
        return [
            [
                self.get_submodule(f"patch_embed{i}"),
                *self.get_submodule(f"block{i}").children(),
                self.get_submodule(f"norm{i}"),
            ]
            for i in range(1, len(self.channels) + 1)
        ]


def run_stage_of_blocks(stage: list[nn.Module], x: Tensor) -> Tensor:
    """Map (N, in_channels, H, W) through patch embedding, blocks and norm to (N, D, h, w)."""
    for part in stage:
        x = part(x)
    return x.permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class MixTransformerOptions(PyramidOptions):
    """Options of a Mix Transformer, besides those of `PyramidOptions`.

    drop_path: stochastic depth of the last block while training; earlier blocks have less, the first none.
    norm_eps: epsilon of the norms in and after the blocks.
    embedding_norm_eps: epsilon of the norms of patch embeddings and of the reduced keys and values.
    """

    drop_path: float = 0.1
    norm_eps: float = 1e-6
    embedding_norm_eps: float = 1e-5


def build(spec: EncoderSettings, in_channels: int) -> MixTransformer:
    """Make a Mix Transformer by name, mit_b0 to mit_b5."""
    return MixTransformer(
        SIZES[spec.name], in_channels=in_channels, output_stride=spec.output_stride or 32, **asdict(spec.options)
    )


FAMILY = EncoderFamily(options=MixTransformerOptions, output_strides=(8, 16, 32), build=build)
