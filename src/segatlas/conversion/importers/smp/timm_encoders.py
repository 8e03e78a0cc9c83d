"""timm's encoders in files of segmentation-models-pytorch (`tu-NAME`): which of timm's networks a file has.

Settings beside the weights name it. Weights alone tell it of the networks in `CANDIDATES`: those whose names and shapes
of tensors are the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.encoders import timm_has
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError

PREFIX = "encoder.model."

WRITTEN = "tu-"
"""What the library writes before timm's names."""

CANDIDATES: dict[str, tuple[str, ...]] = {
    "stem_0.weight": (
        *(f"convnext_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge")),
        *(f"convnextv2_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "base", "large")),
        "edgenext_small",
    ),
    "conv1.weight": (
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *("resnext50_32x4d", "resnext101_32x8d", "seresnet50", "seresnext50_32x4d", "wide_resnet50_2"),
    ),
    "conv1.0.weight": ("resnet18d", "resnet34d", "resnet50d", "resnet101d", "resnest50d", "resnest101e"),
    "conv_stem.weight": (
        *(f"efficientnet_b{size}" for size in range(8)),
        *(f"efficientnet_lite{size}" for size in range(5)),
        *("mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100", "efficientnetv2_s", "efficientnetv2_m"),
    ),
    "patch_embed.proj.weight": (
        *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
        *(f"pvt_v2_b{size}" for size in range(6)),
    ),
    "stem.conv.weight": (*(f"regnetx_{size}" for size in ("002", "004", "008", "016")), "regnety_008", "regnety_016"),
    "features_0.weight": tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "features_conv0.weight": ("densenet121", "densenet161", "densenet169", "densenet201"),
}
"""A tensor that tells the kind of network -> names of timm to try, in this order: of twins the first is taken."""


def timm_name(file: ForeignWeights) -> str:
    """Return timm's name of the encoder in a file, "" where none of timm's is in it.

    Raises:
        WeightsError: there is one, but settings name none that timm has, and weights alone do not tell which.
    """
    shapes = {name.removeprefix(PREFIX): tuple(t.shape) for name, t in file.tensors.items() if name.startswith(PREFIX)}
    if not shapes:
        return ""
    stated = file.stated("encoder_name")
    if isinstance(stated, str):
        if not stated.startswith(WRITTEN) or not timm_has(stated.removeprefix(WRITTEN)):
            raise WeightsError(f"encoder_name is '{stated}', but the encoder in the file is one of timm's, tu-NAME")
        return stated.removeprefix(WRITTEN)
    for key, names in CANDIDATES.items():
        if key in shapes:
            for name in names:
                if timm_has(name) and _fits(_shapes(name), shapes, key):
                    file.note(f"encoder = timm/{name} (by its names and shapes; timm may have others of the same)")
                    return name
    raise WeightsError(
        "the encoder is one of timm's, but names and shapes do not tell which: name it in a config.json beside the "
        'file (or --config), {"encoder_name": "tu-NAME"}'
    )


def _fits(network: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], first: str) -> bool:
    """Tell whether every tensor found is one of the network's, whatever the channels of the image.

    A shallower encoder lacks the last stages, so the network may have more.
    """
    if not found.keys() <= network.keys() or found[first][2:] != network[first][2:]:
        return False
    return all(network[name] == shape for name, shape in found.items() if name != first)


@lru_cache(maxsize=16)
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with shapes_only():
        encoder = create_encoder(f"timm/{name}")
    return {key.removeprefix("model."): tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
