"""Encoders by name. The table holds no torch; `create_encoder` imports the one file that it needs."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from segatlas.errors import UsageError

if TYPE_CHECKING:
    from segatlas.encoders.contract import Encoder, TokenEncoder

_RESNET = "segatlas.encoders.resnet"
_RESNEST = "segatlas.encoders.resnest"
_MOBILENET_V2 = "segatlas.encoders.mobilenet_v2"
_MIT = "segatlas.encoders.mit"
_HRNET = "segatlas.encoders.hrnet"

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
}
"""Name of each encoder written here -> the module whose `build(name, ...)` makes it."""


def create_encoder(name: str, *, in_channels: int = 3, output_stride: int | None = None, **fields: Any) -> Encoder:
    """Make an encoder with random weights.

    Args:
        name: one of `ENCODERS`; otherwise a timm backbone, as `timm/NAME` or plainly NAME.
        in_channels: channels of the image.
        output_stride: stride of the last map, for encoders that can dilate in place of striding; None = its own.
        fields: further settings of that encoder family, e.g. `multi_grid` of a ResNet.

    Raises:
        UsageError: no such encoder, or a field that this encoder does not have.
    """
    if output_stride is not None:
        fields["output_stride"] = output_stride
    build = import_module(ENCODERS.get(name, "segatlas.encoders.timm_adapter")).build
    known = [field for field in inspect.signature(build).parameters if field not in ("name", "in_channels")]
    for field in fields:
        if field not in known:
            advice = "; set output_stride to null for the encoder's own" if field == "output_stride" else ""
            raise UsageError(f"encoder '{name}' has no field '{field}'; it has: {', '.join(known) or 'none'}{advice}")
    encoder: Encoder = build(name.removeprefix("timm/"), in_channels=in_channels, **fields)
    return encoder


def create_token_encoder(name: str, *, in_channels: int = 3, **fields: Any) -> TokenEncoder:
    """Make an encoder of tokens with random weights: a plain ViT of timm, as `timm/NAME` or plainly NAME.

    Raises:
        UsageError: no such encoder, one that gives maps only, or a field that it does not have.
    """
    from segatlas.encoders.timm_tokens import build, is_plain

    if name in ENCODERS or not is_plain(name):
        raise UsageError(f"encoder '{name}' gives no tokens")
    encoder: TokenEncoder = build(name.removeprefix("timm/"), in_channels=in_channels, **fields)
    return encoder


def timm_names() -> list[str]:
    """Return the names of timm's backbones, without tags. Imports timm, which takes seconds."""
    import timm

    names: list[str] = timm.list_models()
    return names


def nearest_encoders(name: str, further: list[str]) -> list[str]:
    """Return up to three known names (own, then `further`) that look like `name`."""
    return difflib.get_close_matches(name, list(dict.fromkeys([*ENCODERS, *further])), n=3, cutoff=0.6)
