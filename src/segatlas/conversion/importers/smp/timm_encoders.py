"""timm's encoders in files of segmentation-models-pytorch (`tu-NAME`): which of timm's networks a file has.

Settings beside the weights name it. Weights alone tell it of the networks in `CANDIDATES`: those whose names and shapes
of tensors are the file's. Releases 0.2 and 0.3 had some of timm's networks as encoders of their own, such as
`timm-regnetx_002`, without `model.` in names; they are those of `OLD_CANDIDATES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames, rename
from segatlas.encoders import timm_has
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError

PREFIX = "encoder.model."

WRITTEN: dict[str, str] = {
    "tu-": "",
    "timm-mobilenetv3": "tf_mobilenetv3",
    **{f"timm-{family}": family for family in ("regnet", "res2", "resnest", "gernet")},
}
"""Beginnings of the library's names of timm's encoders -> of timm's: today's, and those that it had for some."""

CANDIDATES: dict[str, tuple[str, ...]] = {
    "stem_0.weight": (
        *(f"convnext_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")),
        *(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large")),
    ),
    "conv1.weight": (
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *("resnext50_32x4d", "resnext101_32x8d", "seresnet50", "seresnext50_32x4d", "wide_resnet50_2"),
    ),
    "conv1.0.weight": ("resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnest50d", "resnest101e"),
    "conv_stem.weight": ("mobilenetv2_100",),
    "patch_embed.proj.weight": (
        *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
        *(f"pvt_v2_b{size}" for size in range(6)),
    ),
    "stem.conv.weight": (*(f"regnetx_{size}" for size in ("002", "004", "008", "016")), "regnety_008", "regnety_016"),
    "features_0.weight": tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "features_conv0.weight": ("densenet121", "densenet161", "densenet169", "densenet201"),
}
"""A tensor that tells the kind of network -> names of timm to try, smallest first.

None has a twin of the same names and shapes but other numbers, as EfficientNet has: `efficientnet_b0` pads otherwise
than `tf_efficientnet_b0`. Such a file is read with the name of its encoder only.
"""


_REGNETS = ("002", "004", "006", "008", "016", "032", "040", "064", "080", "120", "160", "320")
_RES2NETS = ("50_26w_4s", "50_48w_2s", "50_14w_8s", "50_26w_6s", "50_26w_8s", "101_26w_4s")

OLD_CANDIDATES: dict[str, tuple[str, ...]] = {
    "stem.conv.weight": tuple(f"regnet{kind}_{size}" for size in _REGNETS for kind in "xy"),
    "conv1.weight": (*(f"res2net{form}" for form in _RES2NETS), "res2next50"),
    "conv1.0.weight": ("resnest14d", "resnest26d", "resnest50d", "resnest101e", "resnest200e", "resnest269e"),
}
"""The same of files of releases 0.2 and 0.3."""

OLD_RENAMES: Renames = (("encoder", "encoder.model"),)
"""Names of these files -> names of today."""


def timm_name(file: ForeignWeights) -> str:
    """Return timm's name of the encoder in a file, "" where none of timm's is in it.

    Raises:
        WeightsError: there is one, but settings name none that timm has, and weights alone do not tell which.
    """
    shapes = {name.removeprefix(PREFIX): tuple(t.shape) for name, t in file.tensors.items() if name.startswith(PREFIX)}
    if not shapes:
        old = {rename(name, OLD_RENAMES): tuple(t.shape) for name, t in file.tensors.items()}
        return _guess(file, {name.removeprefix(PREFIX): shape for name, shape in old.items() if name}, OLD_CANDIDATES)
    stated = file.stated("encoder_name")
    if isinstance(stated, str):
        theirs = (name + stated.removeprefix(start) for start, name in WRITTEN.items() if stated.startswith(start))
        named = next(theirs, "")
        if not named or not timm_has(named):
            raise WeightsError(f"encoder_name is '{stated}', but the encoder in the file is one of timm's, tu-NAME")
        return named
    name = _guess(file, shapes, CANDIDATES)
    if not name:
        raise WeightsError(
            "the encoder is one of timm's, but names and shapes do not tell which: state it, --set "
            "encoder_name=tu-NAME (timm-NAME in early releases), or by a config.json beside the file, "
            '{"encoder_name": "tu-NAME"}'
        )
    return name


def _guess(
    file: ForeignWeights, shapes: Mapping[str, tuple[int, ...]], candidates: Mapping[str, tuple[str, ...]]
) -> str:
    """Return the first of the networks that have a file's tensors, "" where none has."""
    for key, names in candidates.items():
        for name in names if key in shapes else ():
            if timm_has(name) and _fits(_shapes(name), shapes, key):
                file.note(f"encoder = timm/{name} (by its names and shapes; timm may have others of the same)")
                return name
    return ""


def _fits(network: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], first: str) -> bool:
    """Tell whether every tensor found is one of the network's, whatever the channels of the image.

    A shallower encoder lacks the last stages, so the network may have more.
    """
    if not found.keys() <= network.keys() or first not in network or found[first][2:] != network[first][2:]:
        return False
    return all(network[name] == shape for name, shape in found.items() if name != first)


@lru_cache(maxsize=16)
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with shapes_only():
        encoder = create_encoder(f"timm/{name}")
    return {key.removeprefix("model."): tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
