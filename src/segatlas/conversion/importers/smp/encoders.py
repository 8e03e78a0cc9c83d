"""Encoders of segmentation-models-pytorch: which of ours a file has, and what else it holds of it.

They have the same names below `encoder`, but for EfficientNet: torchvision's for ResNet, ResNeXt, MobileNetV2, DenseNet
and VGG, the authors' for Mix Transformers, timm's below `encoder.model` for its `tu-` encoders. Whatever the depth, the
files hold all stages of an encoder, the unused ones too (timm's do not).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segatlas.build.encoder_names import FIRST_PORT
from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mit import authors_mit_name
from segatlas.conversion.importers.renames import Renames, to_ours, to_theirs
from segatlas.conversion.importers.smp.timm_encoders import OLD_RENAMES, timm_name
from segatlas.encoders import ENCODERS
from segatlas.encoders.densenet import SIZES as DENSENETS
from segatlas.encoders.efficientnet import SIZES as EFFICIENTNETS
from segatlas.encoders.efficientnet import rows, scaled_width
from segatlas.encoders.family import MOST_LEVELS
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.encoders.vgg import DEPTHS as VGGS
from segatlas.errors import WeightsError

TIMM = "timm/"
"""What stands before timm's names in ours; the library writes `tu-`."""

_SHOWN = 6


class Family(NamedTuple):
    """A family of encoders in the library's files.

    name: our name of the encoder in a file, "" where it is none of this family that is ours.
    dilated: options with which ours dilates as theirs does.
    """

    name: Callable[[ForeignWeights], str]
    dilated: Mapping[str, Any] = {}


def encoder_fields(
    file: ForeignWeights,
    *,
    maps: Sequence[int],
    depth: int = MOST_LEVELS,
    levels: int | None = None,
    output_stride: int | None = None,
) -> dict[str, Any]:
    """Return the fields `encoder` and `in_channels` of the config of a network that is told by its decoder.

    Args:
        file: the weights.
        maps: channels of the encoder's maps that the decoder takes, the deepest first; as many as the file tells.
        depth: how often the library's encoder halves the image for this network unless asked otherwise.
        levels: how often it does in this file, where the decoder tells.
        output_stride: that of the library's network where its settings do not tell; None = it never dilates.

    Raises:
        WeightsError: an encoder that is none of ours, or one whose maps are not those that the decoder takes.
    """
    name, family = _found(file)
    group: dict[str, Any] = {"name": name}
    if output_stride is not None:
        group |= {"output_stride": file.setting("encoder_output_stride", output_stride), **family.dilated}
    if name in EFFICIENTNETS and any(row.side % 2 and row.stride == 2 for row in rows(name)):
        group |= _padding(file)
    full = _full(name)
    if min(full.strides) == 1:
        group["finest_stride"] = 2  # the library's decoders take no map of the image's size
    levels = _levels(file, full, maps, depth, levels)
    if levels != MOST_LEVELS:
        group["levels"] = levels
    renames = encoder_renames(EncoderSpec(name=name))
    first = next((key for key in file.tensors if to_ours(key, renames) == full.first), full.first)
    return {"encoder": group, "in_channels": file.shape(first)[1]}


def encoder_renames(encoder: EncoderSpec | None) -> Renames:
    """Return the table of an encoder of ours. WeightsError where the library has none that is the same."""
    if encoder is None:
        raise WeightsError("segmentation-models-pytorch has none without a named encoder")
    file = ENCODERS.get(encoder.name, "").rpartition(".")[2]
    if encoder.name in EFFICIENTNETS:
        return _EFFICIENTNET
    if file == "densenet":
        return _DENSENET
    same = encoder.name in (*_PLAIN_RESNETS, "mobilenet_v2") or encoder.name.startswith("resnext")
    if encoder.name not in ENCODERS:
        return _TIMM
    if same or file in ("mit", "vgg"):
        return _SAME
    raise WeightsError(f"segmentation-models-pytorch has no encoder like '{encoder.name}'")


def unused_tensors(encoder: EncoderSpec | None) -> dict[str, Tensor]:
    """Return what the library keeps of an encoder and never uses: stages below the last map, a last convolution."""
    unused: dict[str, Tensor] = {}
    if encoder is None:
        return unused
    if encoder.options.levels is not None and encoder.name in ENCODERS:
        renames = encoder_renames(encoder)
        kept = _state(encoder.fields())
        for name, tensor in _state({**encoder.fields(), "levels": None}).items():
            if name not in kept:
                unused[str(to_theirs(f"encoder.{name}", renames))] = _zeros(tensor.shape, tensor.dtype)
    if encoder.name in EFFICIENTNETS:
        inputs = rows(encoder.name)[-1].group.out_channels
        width = scaled_width(1280, EFFICIENTNETS[encoder.name].width)
        unused["encoder._conv_head.weight"] = _zeros((width, inputs, 1, 1), torch.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            unused[f"encoder._bn1.{part}"] = _zeros((width,), torch.float32)
        unused["encoder._bn1.num_batches_tracked"] = _zeros((), torch.int64)
    return unused


def _found(file: ForeignWeights) -> tuple[str, Family]:
    """Return our name of the encoder, and its family. WeightsError where there is none that is ours."""
    for family in _FAMILIES:
        name = family.name(file)
        if name:
            return name, family
    parts = sorted({".".join(key.split(".")[1:3]) for key in file.tensors if key.startswith("encoder.")})
    stated = file.stated("encoder_name")
    told = f" '{stated}'" if isinstance(stated, str) else ""
    listed = ", ".join(parts[:_SHOWN]) + (", ..." if len(parts) > _SHOWN else "")
    raise WeightsError(
        f"the encoder{told} is none that can be read (its parts: {listed or 'none'}); expected a ResNet, ResNeXt, "
        "MobileNetV2, EfficientNet, DenseNet, VGG, Mix Transformer, or one of timm's (tu-NAME)"
    )


def _padding(file: ForeignWeights) -> dict[str, Any]:
    """Return the option by which an EfficientNet pads; releases before 0.3, which wrote no settings, did otherwise."""
    stated = file.stated("library_version")
    if stated is None and not file.settings:
        file.note(
            "padding of the EfficientNet is that of releases from 0.3 on; for a model of 0.2: --set library_version=0.2"
        )
    return {"even_padding": True} if str(stated).startswith(("0.1", "0.2")) else {}


class _Full(NamedTuple):
    """An encoder of ours with all its stages: its maps, and the kernel of its first convolution."""

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    first: str

    def maps(self, levels: int) -> tuple[int, ...]:
        """Return the channels of its maps at that depth, the deepest first."""
        pairs = zip(self.channels, self.strides, strict=True)
        return tuple(width for width, stride in pairs if 2 <= stride <= 2**levels)[::-1]


@lru_cache
def _full(name: str) -> _Full:
    with shapes_only():
        encoder = create_encoder(name)
    first = next(part for part, module in encoder.named_modules() if isinstance(module, nn.Conv2d))
    return _Full(name, encoder.channels, encoder.strides, f"encoder.{first}.weight")


def _levels(file: ForeignWeights, full: _Full, maps: Sequence[int], depth: int, levels: int | None) -> int:
    """Return how often the encoder halves the image: told by the decoder, by settings, or by the channels it takes."""
    stated = file.stated("encoder_depth")
    if levels is not None and stated is not None and stated != levels:
        raise WeightsError(f"encoder_depth is {stated}, but the decoder of the file has {levels} steps")
    wanted = levels if levels is not None else stated
    asked = range(2, MOST_LEVELS + 1) if wanted is None else (wanted,)
    fitting = [count for count in asked if full.maps(count)[: len(maps)] == tuple(maps)]
    if not fitting:
        at = "" if wanted is None else f" of depth {wanted}"
        raise WeightsError(
            f"the decoder takes maps of {_listed(maps)} channels, the deepest first, but the encoder {full.name}{at} "
            f"gives {_listed(full.maps(asked[-1]))}"
        )
    if len(fitting) == 1:
        return int(fitting[0])
    if depth not in fitting:
        raise WeightsError(
            f"the weights fit an encoder_depth of {_listed(fitting)} alike, and the library's default is {depth}: "
            f"state it, --set encoder_depth={fitting[0]}, or by a config.json beside the file"
        )
    file.note(f"encoder_depth = {depth} (the library's default; the weights fit {_listed(fitting)} alike)")
    return depth


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "no"


def _state(group: Mapping[str, Any]) -> dict[str, Tensor]:
    with shapes_only():
        return dict(create_encoder(EncoderSpec.of(**group)).state_dict())


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return zeros that take no memory."""
    return torch.zeros((), dtype=dtype).expand(tuple(shape))


_RESNETS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
"""(has bottlenecks, blocks of each layer) -> depth."""

_PLAIN_RESNETS = tuple(f"resnet{depth}" for depth in _RESNETS.values())


def _resnet(file: ForeignWeights) -> str:
    if not file.has("encoder.conv1.weight", "encoder.layer1.0.conv2.weight"):
        return ""
    blocks = tuple(file.count(f"encoder.layer{layer}.{{i}}") for layer in (1, 2, 3, 4))
    depth = _RESNETS.get((file.has("encoder.layer1.0.conv3"), blocks), 0)
    inner, in_group = file.shape("encoder.layer1.0.conv2.weight")[:2]
    name = f"resnet{depth}" if (inner, in_group) == (64, 64) else f"resnext{depth}_{inner // in_group}x{in_group}d"
    return name if name in ENCODERS else ""


def _mobilenet_v2(file: ForeignWeights) -> str:
    return "mobilenet_v2" if file.has("encoder.features.18.0.weight", "encoder.features.1.conv.0.0.weight") else ""


def _efficientnet(file: ForeignWeights) -> str:
    if not file.has("encoder._conv_stem.weight"):
        return ""
    found = (file.shape("encoder._conv_stem.weight")[0], file.count("encoder._blocks.{i}"))
    sizes = {name: rows(name) for name in EFFICIENTNETS}
    fitting = [name for name, table in sizes.items() if (table[0].in_channels, len(table)) == found]
    widths = {name: sizes[name][-1].group.out_channels for name in fitting}
    last = f"encoder._blocks.{found[1] - 1}._project_conv.weight"
    return next((name for name in fitting if last in file.tensors and file.shape(last)[0] == widths[name]), "")


def _densenet(file: ForeignWeights) -> str:
    if not file.has("encoder.features.conv0.weight", "encoder.features.denseblock1"):
        return ""
    depths = [file.count(f"encoder.features.denseblock{i}.denselayer{{i}}") for i in (1, 2, 3, 4)]
    stem = file.shape("encoder.features.conv0.weight")[0]
    return next((name for name, size in DENSENETS.items() if (size.stem, list(size.depths)) == (stem, depths)), "")


def _vgg(file: ForeignWeights) -> str:
    first = file.tensors.get("encoder.features.0.weight")
    if first is None or first.ndim != 4:
        return ""
    convolutions = [name for name, tensor in file.tensors.items() if _is_plain_convolution(name, tensor)]
    norm = "_bn" if file.has("encoder.features.1.running_mean") else ""
    return next((f"{name}{norm}" for name, depths in VGGS.items() if sum(depths) == len(convolutions)), "")


def _is_plain_convolution(name: str, tensor: Tensor) -> bool:
    parts = name.split(".")
    return parts[:2] == ["encoder", "features"] and len(parts) == 4 and parts[3] == "weight" and tensor.ndim == 4


def _mit(file: ForeignWeights) -> str:
    return authors_mit_name(file, "encoder") or ""


def _timm(file: ForeignWeights) -> str:
    name = timm_name(file)
    return f"{TIMM}{name}" if name else ""


_FAMILIES = (
    Family(_resnet, {"contract_dilation": False}),
    Family(_mobilenet_v2, {"dilate_every_block": True}),
    Family(_efficientnet),
    Family(_densenet),
    Family(_vgg),
    Family(_mit),
    Family(_timm),
)

_SAME: Renames = (("encoder", "encoder"),)

_TIMM: Renames = (("encoder.model", "encoder.model"), *OLD_RENAMES)

_EFFICIENTNET: Renames = (
    ("encoder._conv_stem", "encoder.conv_stem"),
    ("encoder._bn0", "encoder.bn1"),
    *((f"encoder._blocks.{{i}}.{theirs}", f"encoder.blocks.{{i}}.{ours}") for theirs, ours in FIRST_PORT.items()),
)

_LAYER = "encoder.features.denseblock{i}.denselayer{j}"

_DENSENET: Renames = (
    *((f"{_LAYER}.{part}{n}", f"{_LAYER}.{part}{n}") for part in ("norm", "conv") for n in (1, 2)),
    # Files of torch before 0.4.1.
    *((f"{_LAYER}.{part}.{n}", f"{_LAYER}.{part}{n}") for part in ("norm", "conv") for n in (1, 2)),
    *_SAME,
)
