"""EoMT: a plain vision transformer that segments by itself, with queries among its patches.

Paper: Kerssies et al. 2025, "Your ViT is Secretly an Image Segmentation Model", https://arxiv.org/abs/2503.19108.

Idea: before the last blocks of the transformer a token for each possible object joins the patches, and the blocks work
on all of them together. A query's class is read off its token, its mask is where patches point the way it does. No
adapter, no pixel decoder, no decoder of queries. While training, queries see only the patches of what was their mask
so far; that fades out block by block, so that prediction needs no such masks.

    image (N, C, H, W) -> patches and prefix tokens (N, P + h w, D) -> first blocks
    -> queries before them (N, Q + P + h w, D) -> last B blocks
    queries -> classes (N, Q, K + 1), the last one "no object"; queries x upsampled patches -> masks (N, Q, s h, s w)

Letters: N batch, C image channels, K classes, H W image, h w grid of patches, D width, P prefix tokens, Q queries,
B blocks with queries, s factor of the upsampling.

How ours differs: nothing in the numbers, which are the authors'; images may have any size, of which the published
networks take one (positions are resized, see `segatlas.encoders.vit`). Whether a block masks in prediction does not
depend on a draw: it does while its `mask_fractions` is at least one half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import TokenEncoderSpec, create_token_encoder
from segatlas.encoders.vit import VisionTransformer
from segatlas.errors import UsageError
from segatlas.layers.linear import TokenLinear
from segatlas.layers.norm import ChannelNorm
from segatlas.layers.padding import pad_to_least, pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.ops.capture import may_differ
from segatlas.structures import Inputs, QueryLayer, QueryMasks, image_of

FINEST = 4
"""Stride at which masks are made, in pixels, where patches are of 8 or more."""

FADES_FROM, FADES_TO, FADES_FOR = 1 / 6, 2 / 3, 1 / 6
"""Fractions of the run: where masks begin to fade in the first and in the last of the blocks, and for how long."""
POWER = 0.9
"""Of the polynomial by which they fade."""
BLACK = (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
"""Red, green and blue of a black pixel that is normalised with ImageNet's statistics."""


@dataclass(frozen=True, kw_only=True)
class EoMTConfig:
    """Settings of an EoMT.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: a plain vision transformer written here, and its options.
    queries: how many objects and kinds of stuff there may be in an image, Q.
    query_blocks: the last so many blocks work on queries, too, B.
    padded_to: images grow right and bottom to so many pixels a side, with black, where they are smaller: so published
        ones for instances and panoptic see all. None = to whole patches.
    fading: for each of these blocks from where to where in the run its masks of attention fade, as fractions of it;
        None = as most published ones: one after the other, from a sixth to five sixths; () = they stay.
    """

    num_classes: int
    in_channels: int = 3
    encoder: TokenEncoderSpec = TokenEncoderSpec(name="dinov2_large")
    queries: int = 200
    query_blocks: int = 4
    padded_to: int | None = None
    fading: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, queries=1, query_blocks=1)
        if self.padded_to is not None:
            require_at_least(self, padded_to=1)
        if self.fading and len(self.fading) != self.query_blocks:
            raise UsageError(f"fading: got {len(self.fading)} pairs, expected {self.query_blocks} (query_blocks)")
        if any(not 0 <= start < end <= 1 for start, end in self.fading or ()):
            raise UsageError("fading: expected pairs of fractions of the run, the second one the larger")


class PatchUpsampling(nn.Sequential):
    """Maps of twice the size: a transposed convolution, GELU, a depthwise convolution, a norm over channels."""

    def __init__(self, width: int):
        super().__init__(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            nn.GELU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False),
            ChannelNorm(width),
        )


class QueryMaskHead(nn.Sequential):
    """What a query looks for in the map of patches: three matrices with GELU between them."""

    def __init__(self, width: int):
        first, second, third = (TokenLinear(width, width) for _ in range(3))
        super().__init__(first, nn.GELU(), second, nn.GELU(), third)


class EoMT(nn.Module):
    """Plain transformer with queries in its last blocks: classes and masks.

    Parameters: `encoder`; `queries` (Q, D); `classifier`, `mask_head`, `upsampling`. Buffer: `mask_fractions` (B,),
    the fraction of queries whose attention is masked in each of the last blocks: 1 at the start of training, 0 once
    masks have faded out.
    """

    mask_fractions: Tensor

    def __init__(self, config: EoMTConfig):
        super().__init__()
        self.config = config
        encoder: Any = create_token_encoder(config.encoder, in_channels=config.in_channels)
        if not isinstance(encoder, VisionTransformer):
            raise UsageError(f"encoder: got {config.encoder.name}, expected one written here, such as dinov2_small")
        if config.query_blocks > len(encoder.blocks):
            depth = len(encoder.blocks)
            raise UsageError(f"query_blocks: got {config.query_blocks}, expected {depth} (the encoder's) at most")
        self.encoder, width = encoder, encoder.width
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        self.classifier = nn.Linear(width, config.num_classes + 1)
        self.mask_head = QueryMaskHead(width)
        self.upsampling = nn.Sequential(*(PatchUpsampling(width) for _ in range(doublings(encoder.patch_size))))
        self.register_buffer("mask_fractions", torch.ones(config.query_blocks))
        self.masked = (True,) * config.query_blocks
        self.register_load_state_dict_post_hook(lambda net, _: net.remember_fractions())

    @property
    def aux_names(self) -> tuple[str, ...]:
        """Return the names of what training gives besides: what queries predict before each block."""
        return tuple(f"layer_{index}" for index in range(self.config.query_blocks))

    # ---- how masks of attention fade
    def remember_fractions(self) -> None:
        """Take over from `mask_fractions` which blocks mask in prediction: a graph cannot ask a tensor."""
        if not self.mask_fractions.is_meta:
            self.masked = tuple(fraction >= 0.5 for fraction in self.mask_fractions.tolist())

    @torch.no_grad()
    def advance(self, done: float) -> None:
        """Set what depends on how much of the training run is done, 0..1."""
        stretches = self.config.fading
        if stretches is None:
            stretches = usual_fading(self.config.query_blocks)
        fractions = [((end - min(max(done, start), end)) / (end - start)) ** POWER for start, end in stretches]
        if fractions:
            self.mask_fractions.copy_(torch.tensor(fractions))
            self.remember_fractions()

    def masks_of_attention(self, mask_logits: Tensor, index: int, grid: tuple[int, int]) -> Tensor:
        """Return which tokens (last) see which, (N, 1, Q + P + h w, the same): queries only the patches of their masks.

        While training, those queries see all patches that a draw lets off, one minus the block's fraction of them.

        Args:
            mask_logits: (N, Q, s h, s w), of the queries so far.
            index: of the block among those with queries.
            grid: (h, w).
        """
        n, queries = mask_logits.shape[:2]
        seen = F.interpolate(mask_logits, size=grid, mode="bilinear", align_corners=False).flatten(2) > 0
        if self.training:
            seen = seen | (torch.rand(n, queries, 1, device=seen.device) > self.mask_fractions[index])
        others = queries + self.encoder.prefix_tokens
        of_queries = torch.cat([seen.new_ones(n, queries, others), seen], dim=2)
        tokens = others + seen.shape[2]
        of_others = seen.new_ones(n, tokens - queries, tokens)
        return torch.cat([of_queries, of_others], dim=1)[:, None]

    # ---- prediction
    def predict(self, tokens: Tensor, grid: tuple[int, int]) -> QueryLayer:
        """Map tokens (N, Q + P + h w, D) to class logits (N, Q, K + 1) and mask logits (N, Q, s h, s w)."""
        tokens = self.encoder.norm(tokens)
        count = self.config.queries
        queries = tokens[:, :count]
        patches = tokens[:, count + self.encoder.prefix_tokens :].transpose(1, 2).unflatten(2, grid)
        fine = self.upsampling(patches)  # (N, D, s h, s w)
        masks = (self.mask_head(queries) @ fine.flatten(2)).unflatten(2, (fine.shape[2], fine.shape[3]))
        return QueryLayer(self.classifier(queries), masks)

    def forward(self, inputs: Tensor | Inputs) -> QueryMasks:
        """Map a normalised image (N, C, H, W) to classes and masks of queries; while training, those of each block."""
        x = image_of(inputs)
        x = x if self.config.padded_to is None else padded_with_black(x, self.config.padded_to)
        x = pad_to_multiple(x, self.encoder.patch_size)
        canvas, (tokens, positions) = (x.shape[-2], x.shape[-1]), self.encoder.embed(x)
        grid, blocks = positions.grid, self.encoder.blocks
        first = len(blocks) - self.config.query_blocks
        earlier: dict[str, QueryLayer] = {}
        for index, block in enumerate(blocks):
            mask, place = None, index - first
            if place == 0:
                tokens = torch.cat([self.queries.expand(tokens.shape[0], -1, -1), tokens], dim=1)
            if place >= 0 and (self.training or self.masked[place]):
                earlier[self.aux_names[place]] = found = self.predict(tokens, grid)
                mask = self.masks_of_attention(found.mask_logits.detach(), place, grid)
            tokens = self.encoder.run_stage(partial(block, positions=positions, mask=mask), tokens)
        last = self.predict(tokens, grid)
        return QueryMasks(*last, canvas, aux=earlier if self.training else {})


def padded_with_black(x: Tensor, least: int) -> Tensor:
    """Pad a normalised image (N, C, H, W) right and bottom to so many pixels a side, where it has fewer.

    Black is that of RGB images with ImageNet's statistics, which all published networks take; of others it is 0.
    """
    padded = pad_to_least(x, least)
    if not may_differ(padded.shape[-2:], x.shape[-2:]) or x.shape[1] != len(BLACK):
        return padded
    black = x.new_tensor(BLACK)
    inside = pad_to_least(torch.ones_like(x[:1, :1]), least)
    return torch.where(inside > 0, padded, black[:, None, None])


def doublings(patch_size: int) -> int:
    """Return how often the map of patches is doubled."""
    return max(1, int(math.log2(patch_size / FINEST)))


def usual_fading(blocks: int) -> tuple[tuple[float, float], ...]:
    """Return from where to where in a run the masks of each block fade, as in most published ones."""
    steps = torch.linspace(FADES_FROM, FADES_TO, blocks, dtype=torch.float64, device="cpu").tolist()
    return tuple((start, start + FADES_FOR) for start in steps)


def _published(encoder: str, *, side: int = 640, **fields: object) -> dict[str, object]:
    options: dict[str, object] = {"patch_size": 16, "image_size": (side, side)}
    if encoder.startswith("dinov2"):
        options |= {"registers": 4, "class_position": False}
    else:
        del options["patch_size"]
    return {"encoder": encoder, "encoder_options": options, **fields}


_DINOV3_SHORT = ((0.0, 0.016912), (0.416667, 0.583333), (0.666667, 0.833333))
_DINOV3_LARGE = ((0.0, 0.033825), (0.333333, 0.5), (0.5, 0.666667), (0.666667, 0.833333))
"""On DINOv3 the first block's masks are gone after 3000 steps, of 177,384 and 88,692."""

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "eomt_s": _published("dinov2_small", query_blocks=3),
    "eomt_b": _published("dinov2_base", query_blocks=3),
    "eomt_l": _published("dinov2_large"),
    "eomt_s_dinov3": _published("dinov3_small", query_blocks=3, fading=_DINOV3_SHORT),
    "eomt_b_dinov3": _published("dinov3_base", query_blocks=3, fading=_DINOV3_SHORT),
    "eomt_l_dinov3": _published("dinov3_large", fading=_DINOV3_LARGE),
}

ARCHITECTURE = Architecture(
    name="eomt",
    title="EoMT",
    paper="https://arxiv.org/abs/2503.19108",
    tasks=("panoptic", "instance", "semantic"),
    output=QueryMasks,
    config=EoMTConfig,
    build=EoMT,
    needs=Needs(targets=("SegmentsTarget", "InstancesTarget", "SemanticTarget")),
    variants=VARIANTS,
    tiny={
        "encoder": {"name": "vit_w32", "depth": 2, "registers": 1, "class_position": False, "image_size": (64, 64)},
        "queries": 6,
        "query_blocks": 1,
    },
)
