"""Encoders by name: the table, which holds no torch. `spec.create_encoder` imports the one file that it needs."""

from __future__ import annotations

from typing import Any

from segatlas.renamed import old_names

_RESNET = "segatlas.encoders.resnet"
_RESNEST = "segatlas.encoders.resnest"
_MOBILENET_V2 = "segatlas.encoders.mobilenet_v2"
_MIT = "segatlas.encoders.mit"
_HRNET = "segatlas.encoders.hrnet"
_EFFICIENTNET = "segatlas.encoders.efficientnet"
_DENSENET = "segatlas.encoders.densenet"
_VGG = "segatlas.encoders.vgg"
_VIT, _VIT_MAPS = "segatlas.encoders.vit", "segatlas.encoders.vit_maps"
_VIT_ADAPTER = "segatlas.encoders.vit_adapter"
_SWIN = "segatlas.encoders.swin"
_MSCAN = "segatlas.encoders.mscan"
_POOLFORMER = "segatlas.encoders.poolformer"
_TWINS = "segatlas.encoders.twins"
_RESIDUAL = "segatlas.encoders.residual"

ENCODERS: dict[str, str] = {
    "resnet18": _RESNET,
    "resnet18_w8": _RESNET,
    "resnet18_w32": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "resnet152": _RESNET,
    "resnet18c": _RESNET,
    "resnet34c": _RESNET,
    "resnet50c": _RESNET,
    "resnet101c": _RESNET,
    "resnet18d": _RESNET,
    "resnet34d": _RESNET,
    "resnet50d": _RESNET,
    "resnet101d": _RESNET,
    "resnext50_32x4d": _RESNET,
    "resnext101_32x4d": _RESNET,
    "resnext101_32x8d": _RESNET,
    "resnext101_64x4d": _RESNET,
    "mobilenet_v2": _MOBILENET_V2,
    "mobilenet_v2_320": _MOBILENET_V2,
    "mit_b0": _MIT,
    "mit_b1": _MIT,
    "mit_b2": _MIT,
    "mit_b3": _MIT,
    "mit_b4": _MIT,
    "mit_b5": _MIT,
    "resnest50": _RESNEST,
    "resnest101": _RESNEST,
    "resnest152": _RESNEST,
    "resnest200": _RESNEST,
    "mobilenet_v3_large": "segatlas.encoders.mobilenet_v3",
    "stdc1": "segatlas.encoders.stdc",
    "stdc2": "segatlas.encoders.stdc",
    "hrnet_w8_small": _HRNET,
    "hrnet_w18_small": _HRNET,
    "hrnet_w18": _HRNET,
    "hrnet_w32": _HRNET,
    "hrnet_w40": _HRNET,
    "hrnet_w48": _HRNET,
    "hrnet_w64": _HRNET,
    **{f"efficientnet-b{size}": _EFFICIENTNET for size in range(8)},
    "densenet121": _DENSENET,
    "densenet161": _DENSENET,
    "densenet169": _DENSENET,
    "densenet201": _DENSENET,
    **{f"vgg{depth}{norm}": _VGG for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    "vit_w32": _VIT_MAPS,
    "vit_tiny": _VIT_MAPS,
    "vit_small": _VIT_MAPS,
    "vit_base": _VIT_MAPS,
    "vit_large": _VIT_MAPS,
    "vit_huge": _VIT_MAPS,
    "dinov2_small": _VIT_MAPS,
    "dinov2_base": _VIT_MAPS,
    "dinov2_large": _VIT_MAPS,
    "dinov2_giant": _VIT_MAPS,
    "dinov3_small": _VIT_MAPS,
    "dinov3_small_plus": _VIT_MAPS,
    "dinov3_base": _VIT_MAPS,
    "dinov3_large": _VIT_MAPS,
    "dinov3_huge_plus": _VIT_MAPS,
    "vit_adapter_w32": _VIT_ADAPTER,
    "vit_adapter_tiny": _VIT_ADAPTER,
    "vit_adapter_small": _VIT_ADAPTER,
    "vit_adapter_base": _VIT_ADAPTER,
    "vit_adapter_large": _VIT_ADAPTER,
    "swin_w8": _SWIN,
    "swin_tiny": _SWIN,
    "swin_small": _SWIN,
    "swin_base": _SWIN,
    "swin_large": _SWIN,
    "mscan_w8": _MSCAN,
    "mscan_t": _MSCAN,
    "mscan_s": _MSCAN,
    "mscan_b": _MSCAN,
    "mscan_l": _MSCAN,
    "residual_w8": _RESIDUAL,
    "residual": _RESIDUAL,
    "poolformer_w8": _POOLFORMER,
    "poolformer_s12": _POOLFORMER,
    "poolformer_s24": _POOLFORMER,
    "poolformer_s36": _POOLFORMER,
    "poolformer_m36": _POOLFORMER,
    "poolformer_m48": _POOLFORMER,
    **{f"twins_{kind}_{size}": _TWINS for kind in ("pcpvt", "svt") for size in ("w8", "small", "base", "large")},
}
"""Name of each encoder of feature maps written here -> the module whose record `FAMILY` makes it."""

ONCE_TIMM = tuple(name for name in ENCODERS if name.startswith(("resnext", "densenet", "vgg")))
"""Names that meant timm's networks in earlier versions; with timm's option `drop_path` beside them they still do."""

OTHERS = "segatlas.encoders.timm_adapter"
"""The module for any other name."""
TOKEN_ENCODERS: dict[str, str] = {name: _VIT for name, module in ENCODERS.items() if module == _VIT_MAPS}
"""Name of each encoder of tokens written here -> the module whose record `FAMILY` makes it."""

OTHER_TOKENS = "segatlas.encoders.timm_tokens"
"""The module for any other name of an encoder of tokens."""

__getattr__ = old_names(__name__)


def timm_has(name: str) -> bool:
    """Tell whether timm has a backbone of that name; `timm/` may stand before it, one of its tags behind it."""
    name = name.removeprefix("timm/")
    return name in (timm_tags(name) if "." in name else timm_names())


def timm_tags(name: str) -> list[str]:
    """Return the names of one of timm's backbones with each tag it has; a tag names published weights."""
    import timm

    names: list[str] = timm.list_models(f"{name.removeprefix('timm/').split('.')[0]}.*", include_tags=True)
    return names


def timm_weights(name: str) -> Any:
    """Return what timm knows of weights that it publishes: `hf_hub_id`, `mean`, `std`, `num_classes`; None of others.

    Args:
        name: of one of its backbones, with a tag or for the usual weights without; `timm/` may stand before it.
    """
    import timm

    try:
        found = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    except (RuntimeError, ValueError):
        return None
    return found if found is not None and found.hf_hub_id else None


def timm_names() -> list[str]:
    """Return the names of timm's backbones, without tags. Imports timm, which takes seconds."""
    import timm

    names: list[str] = timm.list_models()
    return names
