"""UPerNet: unified perceptual parsing.

Paper: Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", https://arxiv.org/abs/1807.10221.

Idea: a feature pyramid whose coarsest level has pyramid pooling before it, so that meaning of the whole image flows
down to the finest map. All levels, concatenated, are fused by one 3x3 convolution.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, D decoder width.

How ours differs: nothing in the numbers, which are MMSegmentation's: the scene-parsing part of the paper, with the
ResNet's own stride of 32. In segmentation-models-pytorch the encoder's maps are normalised first, and logits are
upsampled with corners held (variant `upernet_r34_smp`). The fusing convolution is computed before the upsampling of the
coarser levels.

On a plain transformer, whose maps have one stride, a neck may make a pyramid of them. Two are published: the
multi-level neck of MMSegmentation for ViT and DeiT ("resize"), and the transposed convolutions of BEiT and MAE
("deconvolve"): https://arxiv.org/abs/2106.08254, appendix. Convolutions of upsampled maps are computed before the
upsampling, which saves nine tenths of the finest one.

A Swin Transformer norms its own maps; those of a ConvNeXt are normed here (`norm_maps`), for both heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.before_upsampling import convolve_before_upsampling
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d, ChannelNorm
from segatlas.layers.pooled_fuse import PooledFuse
from segatlas.layers.ppm import PPM
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import Resample, SemanticLogits


@dataclass(frozen=True, kw_only=True)
class UPerNetConfig(HeadConfig, PresenceConfig):
    """Settings of a UPerNet, besides those of `HeadConfig` and `PresenceConfig`.

    levels: how many of the encoder's last maps the pyramid takes.
    pool_scales: cells along each side of each pooled map.
    norm_maps: layer norm over the channels of each of the encoder's maps.
    logits_align_corners: how logits are upsampled; None = as maps are, `align_corners`.
    neck: what makes a pyramid of the four maps of a plain transformer: "resize", "deconvolve", or "none".
    aux_level: which of the maps the auxiliary head sees, counted from the last.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet50c")
    levels: int = 4
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    norm_maps: bool = False
    logits_align_corners: bool | None = None
    aux_channels: int | None = 256
    neck: Literal["none", "resize", "deconvolve"] = "none"
    aux_level: int = 2


class Neck(nn.Module, ABC):
    """Makes a pyramid of four maps of one width and stride, each by itself: 4, 2, 1 and 1/2 times their size."""

    def __init__(self, width: int):
        super().__init__()

    @abstractmethod
    def level(self, index: int, x: Tensor) -> Tensor:
        """Map the map (N, E, h, w) of that index to the level that it becomes."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map four maps (N, E, h, w) to (N, E, 4h, 4w), (N, E, 2h, 2w), (N, E, h, w) and (N, E, h/2, w/2)."""
        return [self.level(index, x) for index, x in enumerate(maps)]


class ResizeNeck(Neck):
    """Resized maps, between a 1x1 and a 3x3 convolution each.

    The 3x3 convolution of an upsampled map is computed before the upsampling.
    """

    def __init__(self, width: int):
        super().__init__(width)
        self.lateral = nn.ModuleList(nn.Conv2d(width, width, kernel_size=1) for _ in range(4))
        self.output = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(4))

    def level(self, index: int, x: Tensor) -> Tensor:
        """Map the map (N, E, h, w) of that index to the level that it becomes."""
        x, output = self.lateral[index](x), self.output[index]
        if index < 2:
            return enlarged(x, output, 4 if index == 0 else 2)
        out: Tensor = output(x if index == 2 else halved(x))
        return out


class DeconvolveNeck(Neck):
    """Transposed convolutions, and pooling of the last map."""

    def __init__(self, width: int):
        super().__init__(width)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)

    def level(self, index: int, x: Tensor) -> Tensor:
        """Map the map (N, E, h, w) of that index to the level that it becomes."""
        if index < 2:
            out: Tensor = (self.up4 if index == 0 else self.up2)(x)
            return out
        return x if index == 2 else F.max_pool2d(at_least_two(x), kernel_size=2)


NECKS: dict[str, type[Neck]] = {"resize": ResizeNeck, "deconvolve": DeconvolveNeck}


def enlarged(x: Tensor, conv: nn.Module, times: int) -> Tensor:
    """Map x (N, C, h, w) to the convolution (N, D, h', w') of it at so many times its size."""
    size = (times * x.shape[-2], times * x.shape[-1])
    weight, bias = conv.get_parameter("weight"), conv.get_parameter("bias")
    out = convolve_before_upsampling([x], [weight], size, align_corners=False)
    return out.add_(bias[:, None, None])


def halved(x: Tensor) -> Tensor:
    """Map x (N, C, h, w) to half its size, rounded down to no less than 1: bilinear, of means of four pixels."""
    return F.avg_pool2d(at_least_two(x), kernel_size=2)


def at_least_two(x: Tensor) -> Tensor:
    """Repeat the last row and column of x (N, C, h, w) where there is one only."""
    for axis in (-2, -1):
        side = x.shape[axis]
        if torch.compiler.is_compiling() or side < 2:
            places = torch.arange(torch.sym_max(side, 2), device=x.device).clamp(max=side - 1)
            x = x.index_select(axis, places)
    return x


class UPerNet(DenseNetwork):
    """Encoder, pyramid pooling, feature pyramid, fusion, 1x1 classifier: logits at the stride of the finest map."""

    def __init__(self, config: UPerNetConfig):
        super().__init__(config)
        require_at_least(config, levels=1, aux_level=1)
        self.levels, self.aux_level = config.levels, config.aux_level
        width_for_neck = self._width_for_neck(config) if config.neck in NECKS else 0
        if len(self.encoder.channels) < config.levels:
            found = len(self.encoder.channels)
            raise UsageError(f"levels = {config.levels}, but {config.encoder} has {found} maps; set levels to {found}")
        if config.logits_align_corners is not None:
            self.resample = Resample(align_corners=config.logits_align_corners)
        channels = self.encoder.channels[-config.levels :]
        width, (*finer, last) = config.channels, channels
        self.norms = nn.ModuleList(ChannelNorm(count) if config.norm_maps else nn.Identity() for count in channels)
        self.neck: Neck | None = NECKS[config.neck](width_for_neck) if width_for_neck else None
        if self.neck is not None:
            init_weights(self.neck)
        self.ppm = PPM(last, width, scales=config.pool_scales, align_corners=config.align_corners)
        self.lateral = nn.ModuleList(ConvBNReLU(channels, width, 1) for channels in finer)
        self.output = nn.ModuleList(ConvBNReLU(width, width) for _ in finer)
        self.of_one_size = self.neck is None and len(set(self.encoder.strides[-config.levels :])) == 1
        self.fuse: ConvBNReLU
        if self.of_one_size:
            self.fuse = ConvBNReLU(config.levels * width, width)
        else:
            self.fuse = PooledFuse(width, [width] * len(finer), width, align_corners=config.align_corners)
        self.add_classifier(config, width, self.ppm, self.lateral, self.output, self.fuse)

    def _width_for_neck(self, config: UPerNetConfig) -> int:
        """Return the channels of each of the encoder's four maps."""
        channels, strides = self.encoder.channels, self.encoder.strides
        if len(channels) != 4 or len(set(channels)) > 1 or len(set(strides)) > 1:
            raise UsageError(
                f"neck: {config.neck!r} takes four maps of one width and stride, but {config.encoder} gives "
                f"maps of {', '.join(map(str, channels))} channels at strides {', '.join(map(str, strides))}"
            )
        return channels[0]

    def aux(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Map the encoder's maps to auxiliary logits by name, for training; a neck stands before the head, too."""
        if self.neck is not None and self.aux_head is not None:
            index = len(features) - self.aux_level
            return {"fcn": self.aux_head(self.neck.level(index, features[index]))}
        if self.aux_level <= self.levels:
            seen = -self.aux_level
            features = [*features[:seen], self.norms[seen](features[seen]), *features[len(features) + seen + 1 :]]
        return super().aux(features)

    def level(self, index: int, x: Tensor) -> Tensor:
        """Map the encoder's map of that index to the level that the pyramid takes."""
        return x if self.neck is None else self.neck.level(index, x)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w).

        The widest maps are a neck's, so one of them is there at a time, and sums overwrite what they were made of.
        """
        indices = range(len(features) - self.levels, len(features))
        maps = [
            layer(norm(self.level(index, features[index])))
            for index, norm, layer in zip(indices, self.norms, (*self.lateral, self.ppm), strict=True)
        ]  # (N, D, h_i, w_i) each
        for i in range(len(maps) - 1, 0, -1):
            size = maps[i - 1].shape[-2:]
            upsampled = F.interpolate(maps[i], size=size, mode="bilinear", align_corners=self.align_corners)
            maps[i - 1] = upsampled.add_(maps[i - 1])
        for i, layer in enumerate(self.output):
            maps[i] = layer(maps[i])
        finest, *others = maps
        out: Tensor = self.fuse(torch.cat([finest, *others], 1)) if self.of_one_size else self.fuse(finest, others)
        return out


SMP: dict[str, Any] = {
    "channels": 256,
    "norm_maps": True,
    "logits_align_corners": True,
    "dropout": 0.0,
}
"""What differs in segmentation-models-pytorch."""


def _on_transformer(encoder: str, *, neck: str = "none", **options: Any) -> dict[str, Any]:
    """Return the fields of a UPerNet on a plain transformer as MMSegmentation has it, for crops of 512x512."""
    defaults = {"image_size": (512, 512), "final_norm": False, "position_antialias": False}
    return {"encoder": encoder, "encoder_options": {**defaults, **options}, "neck": neck, "aux_level": 1}


def _on_swin(size: str, window: int = 7) -> dict[str, Any]:
    """Return the fields of a UPerNet on a Swin Transformer as MMSegmentation has it."""
    return {"encoder": f"swin_{size}", **({} if window == 7 else {"encoder_options": {"window": window}})}


def _on_convnext(size: str, drop_path: float = 0.4) -> dict[str, Any]:
    """Return the fields of a UPerNet on a ConvNeXt as MMSegmentation has it."""
    return {"encoder": f"convnext_{size}", "encoder_options": {"drop_path": drop_path}, "norm_maps": True}


_LAST_NORM = {"final_norm": True, "norm_last_only": True}

_MAE = {"at": (3, 5, 7, 11), "relative_positions": True, "layer_scale": 1.0, "drop_path": 0.1}


def _on_twins(size: str, drop_path: float = 0.2) -> dict[str, Any]:
    """Return the fields of a UPerNet on a Twins as MMSegmentation has it."""
    return {"encoder": f"twins_{size}", **({} if drop_path == 0.2 else {"encoder_options": {"drop_path": drop_path}})}


def _on_beit(encoder: str, width: int, at: tuple[int, ...], drop_path: float, scale: float) -> dict[str, Any]:
    """Return the fields of a UPerNet on BEiT as its authors have it, for crops of 640x640."""
    relative = {"absolute_positions": False, "relative_positions": True, "key_bias": False}
    options = {"at": at, "layer_scale": scale, "drop_path": drop_path, "image_size": (640, 640), **relative}
    return {**_on_transformer(encoder, neck="deconvolve", **options), "channels": width, "aux_level": 2}


ARCHITECTURE = Architecture(
    name="upernet",
    title="UPerNet",
    paper="https://arxiv.org/abs/1807.10221",
    tasks=("semantic",),
    output=SemanticLogits,
    config=UPerNetConfig,
    build=UPerNet,
    variants={
        "upernet_r18": {"encoder": "resnet18c"},
        "upernet_r50": {"encoder": "resnet50c"},
        "upernet_r101": {"encoder": "resnet101c"},
        "upernet_r34_smp": {"encoder": "resnet34", **SMP},
        "upernet_vit_b16_mln": _on_transformer("vit_base", neck="resize"),
        "upernet_vit_b16_ln_mln": _on_transformer("vit_base", neck="resize", drop_path=0.1, **_LAST_NORM),
        "upernet_deit_s16": _on_transformer("vit_small", drop_path=0.1),
        "upernet_deit_s16_mln": _on_transformer("vit_small", neck="resize", drop_path=0.1),
        "upernet_deit_s16_ln_mln": _on_transformer("vit_small", neck="resize", drop_path=0.1, **_LAST_NORM),
        "upernet_deit_b16": _on_transformer("vit_base", drop_path=0.1),
        "upernet_deit_b16_mln": _on_transformer("vit_base", neck="resize", drop_path=0.1),
        "upernet_deit_b16_ln_mln": _on_transformer("vit_base", neck="resize", drop_path=0.1, **_LAST_NORM),
        "upernet_mae_b16": {**_on_transformer("vit_base", neck="deconvolve", **_MAE), "channels": 768, "aux_level": 2},
        "upernet_beit_b": _on_beit("vit_base", 768, (3, 5, 7, 11), drop_path=0.1, scale=0.1),
        "upernet_beit_l": _on_beit("vit_large", 1024, (7, 11, 15, 23), drop_path=0.2, scale=1e-6),
        "upernet_vit_adapter_t": {"encoder": "vit_adapter_tiny"},
        "upernet_vit_adapter_s": {"encoder": "vit_adapter_small"},
        "upernet_vit_adapter_b": {"encoder": "vit_adapter_base"},
        "upernet_vit_adapter_l": {"encoder": "vit_adapter_large"},
        "upernet_swin_t": _on_swin("tiny"),
        "upernet_swin_s": _on_swin("small"),
        "upernet_swin_b": _on_swin("base"),
        "upernet_swin_b_w12": _on_swin("base", window=12),
        "upernet_swin_l": _on_swin("large"),
        "upernet_swin_l_w12": _on_swin("large", window=12),
        "upernet_twins_pcpvt_s": _on_twins("pcpvt_small"),
        "upernet_twins_pcpvt_b": _on_twins("pcpvt_base", drop_path=0.3),
        "upernet_twins_pcpvt_l": _on_twins("pcpvt_large", drop_path=0.3),
        "upernet_twins_svt_s": _on_twins("svt_small"),
        "upernet_twins_svt_b": _on_twins("svt_base"),
        "upernet_twins_svt_l": _on_twins("svt_large", drop_path=0.3),
        "upernet_convnext_t": _on_convnext("tiny"),
        "upernet_convnext_s": _on_convnext("small", drop_path=0.3),
        "upernet_convnext_b": _on_convnext("base"),
        "upernet_convnext_l": _on_convnext("large"),
        "upernet_convnext_xl": _on_convnext("xlarge"),
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True, "aux_channels": 8},
)
