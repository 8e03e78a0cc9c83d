"""ViT-Adapter: a plain vision transformer with a branch of convolutions that makes it a pyramid.

Paper: Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", https://arxiv.org/abs/2205.08534.

Idea: the transformer stays as it was pre-trained. Beside it, convolutions of the image give maps at 1/8, 1/16 and 1/32,
which say what lies where. Four times these tokens tell the transformer's (`Injector`), it runs a quarter of its blocks,
and tells them (`Extractor`), each by deformable attention. The maps, with the transformer's own resized onto them, are
the pyramid.

Letters: N batch, C image channels, H W image, D width, h w grid of patches at 1/16, T cells of the maps at 1/8, 1/16
and 1/32.

How ours differs: nothing in the numbers. The transformer is `encoders/vit.py` as `vit`, without class token and final
norm; the authors keep a position of the class token that nothing depends on (their parameter counts are higher by D).
Maps stay channels-last, so that a map and its tokens are the same memory. Factors of channels behind the transformer's
parts start at 1: ImageNet's weights have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.encoders.vit import FORMS, Positions, VisionTransformer, VisionTransformerOptions
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.deformable_attention import DeformableAttention, Grid, centers
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.layers.norm import BatchNorm2d

INTERACTIONS = 4
STRIDES = (4, 8, 16, 32)
NORM_EPS = 1e-6
HIDDEN = 4
"""Width of the extractors' feed-forward part, as a divisor of D."""


@dataclass(frozen=True, kw_only=True)
class AdapterForm:
    """What a name says.

    vit: its transformer, a name of `encoders.vit.FORMS`. heads: of deformable attention. value_ratio: width of its
    values as a fraction of D. stem: channels of the first convolutions. drop_path: the published stochastic depth.
    """

    vit: str
    heads: int
    value_ratio: float = 1.0
    stem: int = 64
    drop_path: float


FORMS_OF_ADAPTERS: dict[str, AdapterForm] = {
    "vit_adapter_w32": AdapterForm(vit="vit_w32", heads=2, stem=4, drop_path=0.1),
    "vit_adapter_tiny": AdapterForm(vit="vit_tiny", heads=6, drop_path=0.1),
    "vit_adapter_small": AdapterForm(vit="vit_small", heads=6, drop_path=0.2),
    "vit_adapter_base": AdapterForm(vit="vit_base", heads=12, value_ratio=0.5, drop_path=0.3),
    "vit_adapter_large": AdapterForm(vit="vit_large", heads=16, value_ratio=0.5, drop_path=0.4),
}


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Options of a ViT-Adapter.

    drop_path: stochastic depth of the last block and of the extractors while training; it rises linearly from 0 at the
        first block. None = as published.
    image_size: height and width of the images that stored positions are for; those of others are resized.
    layer_scale: starting value of a factor for each channel behind attention and feed-forward part.
    injection: starting value of a factor for each channel of what the transformer is told; 0: nothing at first.
    """

    drop_path: float | None = None
    image_size: tuple[int, int] = (224, 224)
    layer_scale: float = 1.0
    injection: float = 0.0


class Places(NamedTuple):
    """Where things stand. patches: centres of the patches, (h w, 2). cells: of the maps, (T, 2). Then their grids."""

    patches: Tensor
    cells: Tensor
    grid: Grid
    grids: tuple[Grid, ...]


class SpatialPrior(nn.Module):
    """Convolutions of the image: maps (N, D, ...) at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, in_channels: int, stem: int, width: int):
        super().__init__()
        self.stem = nn.Sequential(
            ConvBNReLU(in_channels, stem, stride=2),
            ConvBNReLU(stem, stem),
            ConvBNReLU(stem, stem),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        channels = (stem, 2 * stem, 4 * stem, 4 * stem)
        pairs = pairwise(channels)
        self.levels = nn.ModuleList(ConvBNReLU(before, after, stride=2) for before, after in pairs)
        self.project = nn.ModuleList(nn.Conv2d(count, width, kernel_size=1) for count in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps, finest first."""
        maps = [self.stem(x)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return [project(x) for project, x in zip(self.project, maps, strict=True)]


class Injector(nn.Module):
    """Tells the patches what the maps hold around them."""

    def __init__(self, width: int, *, heads: int, value_ratio: float, start: float):
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DeformableAttention(width, heads=heads, levels=3, value_ratio=value_ratio)
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor, cells: Tensor, places: Places) -> Tensor:
        """Map patches (N, h w, D) to the same shape, given cells (N, T, D)."""
        told = self.attn(self.query_norm(x), places.patches, self.feat_norm(cells), places.grids)
        return x + self.gamma * told


class ConvFeedForward(nn.Module):
    """A feed-forward part with a depthwise 3x3 convolution, the same for all maps."""

    def __init__(self, width: int):
        super().__init__()
        hidden = width // HIDDEN
        self.fc1 = TokenLinear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(hidden, width)

    def forward(self, cells: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Map cells (N, T, D) to the same shape."""
        maps = (self.dwconv(x).flatten(2).transpose(1, 2) for x in as_maps(self.fc1(cells), grids))
        out: Tensor = self.fc2(self.act(torch.cat(list(maps), dim=1)))
        return out


class Extractor(nn.Module):
    """Tells the maps what the patches hold around their cells, then a feed-forward part."""

    def __init__(self, width: int, *, heads: int, value_ratio: float, drop_path: float):
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = DeformableAttention(width, heads=heads, levels=1, value_ratio=value_ratio)
        self.ffn = ConvFeedForward(width)
        self.ffn_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.drop_path = DropPath(drop_path)

    def forward(self, cells: Tensor, x: Tensor, places: Places) -> Tensor:
        """Map cells (N, T, D) to the same shape, given patches (N, h w, D)."""
        cells = cells + self.attn(self.query_norm(cells), places.cells, self.feat_norm(x), [places.grid])
        out: Tensor = cells + self.drop_path(self.ffn(self.ffn_norm(cells), places.grids))
        return out


class Interaction(nn.Module):
    """An injector before a quarter of the transformer's blocks, extractors after it: three in the last, else one."""

    def __init__(self, width: int, *, heads: int, value_ratio: float, injection: float, drop_path: float, last: bool):
        super().__init__()
        extractor = partial(Extractor, width, heads=heads, value_ratio=value_ratio, drop_path=drop_path)
        self.injector = Injector(width, heads=heads, value_ratio=value_ratio, start=injection)
        self.extractors = nn.ModuleList(extractor() for _ in range(3 if last else 1))

    def forward(
        self, pair: list[Tensor], blocks: Sequence[nn.Module], positions: Positions, places: Places
    ) -> list[Tensor]:
        """Map patches (N, h w, D) and cells (N, T, D) to the same shapes."""
        x, cells = pair
        x = self.injector(x, cells, places)
        for block in blocks:
            x = block(x, positions)
        for extractor in self.extractors:
            cells = extractor(cells, x, places)
        return [x, cells]


class ViTAdapter(PyramidEncoder):
    """Transformer and adapter; see the top of this file.

    Args:
        form: which transformer, and the sizes of the adapter.
        options: settings.
        in_channels: channels of the image.
    """

    size_divisibility = 32

    def __init__(self, form: AdapterForm, options: AdapterOptions, *, in_channels: int = 3):
        super().__init__()
        drop_path = form.drop_path if options.drop_path is None else options.drop_path
        vit = replace(FORMS[form.vit], image_size=options.image_size, layer_scale=options.layer_scale)
        settings = VisionTransformerOptions(
            drop_path=drop_path, class_token=False, final_norm=False, position_antialias=False
        )
        self.vit = VisionTransformer(vit, settings, in_channels=in_channels)
        width = vit.width
        self.channels, self.strides = (width,) * len(STRIDES), STRIDES
        interaction = partial(
            Interaction,
            width,
            heads=form.heads,
            value_ratio=form.value_ratio,
            injection=options.injection,
            drop_path=drop_path,
        )
        self.level_embed = nn.Parameter(torch.empty(len(STRIDES) - 1, width))
        self.spm = SpatialPrior(in_channels, form.stem, width)
        self.interactions = nn.ModuleList(interaction(last=i == INTERACTIONS - 1) for i in range(INTERACTIONS))
        self.up = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.norms = nn.ModuleList(BatchNorm2d(width) for _ in STRIDES)
        nn.init.normal_(self.level_embed)
        for part in (self.spm, self.interactions, self.up, self.norms):
            init_weights(part)
        for module in self.interactions.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()

    @property
    def pretrained(self) -> nn.Module:
        """The transformer: published weights are its."""
        return self.vit

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to four maps (N, D, h, w), channels-last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        finest, *maps = self.spm(x)
        patches, positions = self.vit.embed(x)
        grids = tuple((m.shape[-2], m.shape[-1]) for m in maps)
        places = Places(centers([positions.grid], x.device), centers(grids, x.device), positions.grid, grids)
        levels = zip(maps, self.level_embed, strict=True)
        cells = torch.cat([m.flatten(2).transpose(1, 2) + level for m, level in levels], dim=1)
        kept, each = [], len(self.vit.blocks) // INTERACTIONS
        for index, interaction in enumerate(self.interactions):
            blocks = self.vit.blocks[index * each : (index + 1) * each]
            stage = partial(interaction, blocks=blocks, positions=positions, places=places)
            patches, cells = self.run_stage(stage, [patches, cells])
            kept += as_maps(patches, [positions.grid])
        return self.pyramid(finest, as_maps(cells, grids), kept)

    def pyramid(self, finest: Tensor, maps: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        """Return four maps (N, D, h, w) of those of the convolutions and of those of the transformer at 1/16."""
        maps = [self.up(maps[0]) + finest, *maps]
        for i, (m, x) in enumerate(zip(maps, kept, strict=True)):
            resized = F.interpolate(x, size=m.shape[-2:], mode="bilinear", align_corners=False)
            maps[i] = self.norms[i](m + resized)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the transformer's stages: patch embedding, then each block."""
        return self.vit.stages()

    def outside_stages(self) -> list[nn.Module]:
        """Return the adapter, which is new where the transformer is pre-trained."""
        return [self.spm, self.interactions, self.up, self.norms]


def as_maps(cells: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """Take cells (N, T, D) apart into maps (N, D, h, w), channels-last in memory."""
    parts = cells.split([h * w for h, w in grids], dim=1)
    return [part.transpose(1, 2).unflatten(2, grid) for part, grid in zip(parts, grids, strict=True)]


def build(spec: EncoderSettings, in_channels: int) -> ViTAdapter:
    """Make a ViT-Adapter by name, see `FORMS_OF_ADAPTERS`."""
    return ViTAdapter(FORMS_OF_ADAPTERS[spec.name], spec.options, in_channels=in_channels)


FAMILY = EncoderFamily(options=AdapterOptions, build=build)
