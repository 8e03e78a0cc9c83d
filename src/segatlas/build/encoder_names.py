"""Names in published files of encoders -> the names of ours; the last layers of image classifiers are left out.

Files of one network have several layouts: torchvision's, timm's, and for EfficientNet that of its first port to torch
(`_blocks.0._expand_conv`), which the packages of `installed_weights` have too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from segatlas.encoders import ENCODERS

Tensors = Mapping[str, Tensor]

_HEADS = ("fc.", "classifier.", "head.", "pre_logits.", "incre_modules.", "downsamp_modules.", "final_layer.")
"""Names of an image classifier's last layers (HRNet has four): dropped on purpose, a segmentation encoder has none."""

_LAST_CONVOLUTION = "features.18."
"""MobileNetV2's convolution to 1280 channels: dropped on purpose where the encoder ends before it."""

_EFFICIENTNET_LAST = ("conv_head.", "bn2.", "features.8.", "features.9.")
"""EfficientNet's last convolution and its norm in timm's files and in torchvision's: no map has them."""

_INVERTED_PARTS = {
    "conv_pw": (0, 0),
    "bn1": (0, 1),
    "conv_dw": (1, 0),
    "bn2": (1, 1),
    "conv_pwl": (2, None),
    "bn3": (3, None),
}
"""timm's names in a MobileNetV2 block -> index of the layer in torchvision's block, and within that layer."""

_FIRST_PARTS = {"conv_dw": (0, 0), "bn1": (0, 1), "conv_pw": (1, None), "bn2": (2, None)}
"""The same in the first block, which does not widen."""

_DEPTHWISE_PARTS = {"conv_dw": "conv_dw", "bn1": "bn2", "se": "se", "conv_pw": "conv_pwl", "bn2": "bn3"}
"""timm's names in an EfficientNet block that does not widen -> ours, which are those of blocks that do."""

FIRST_PORT = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""Names of the first port of EfficientNet to torch -> ours, in every block."""

_TORCHVISION_PARTS = ({"0": "conv_pw", "1": "bn1"}, {"0": "conv_dw", "1": "bn2"}, {"0": "conv_pwl", "1": "bn3"})
_SQUEEZE = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}

_CONVNEXT_PARTS = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
"""torchvision's names in a ConvNeXt block -> timm's."""

_AUTHORS_CONVNEXT = {
    "dwconv": "conv_dw",
    "pwconv1": "mlp.fc1",
    "pwconv2": "mlp.fc2",
    "depthwise_conv": "conv_dw",
    "pointwise_conv1": "mlp.fc1",
    "pointwise_conv2": "mlp.fc2",
}
"""The authors' names in a ConvNeXt block, and MMPretrain's, -> timm's."""


def renamed(name: str, expected: Tensors, tensors: Tensors) -> dict[str, Tensor]:
    """Give a file's tensors the names of the encoder `name`; the classifier is left out.

    Args:
        name: of the encoder.
        expected: its state dict.
        tensors: of the file.
    """
    if name not in ENCODERS:
        return _of_timm(expected, tensors)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(_HEADS)}
    kept = _BY_FAMILY.get(ENCODERS[name].rpartition(".")[2], _unchanged)(kept, expected)
    if name == "mobilenet_v2_320":
        kept = {key: tensor for key, tensor in kept.items() if not key.startswith(_LAST_CONVOLUTION)}
    return kept


def _unchanged(tensors: Tensors, _: Tensors) -> dict[str, Tensor]:
    return dict(tensors)


def _of_timm(expected: Tensors, tensors: Tensors) -> dict[str, Tensor]:
    """Find what a timm backbone expects, below any of the names that files have for it; all else is left out."""
    if "_conv_stem.weight" in tensors:
        tensors = _in_groups(_of_first_port(tensors), expected)
    elif "features.0.0.weight" in tensors and "model.stages_0.blocks.0.gamma" in expected:
        tensors = _of_torchvisions_convnext(tensors)
    elif "model.stages_0.blocks.0.gamma" in expected:
        tensors = _of_the_authors_convnext(tensors)
    pairs = {key: next((k for k in _timm_names(key) if k in tensors), None) for key in expected}
    return {key: tensors[theirs] for key, theirs in pairs.items() if theirs is not None}


def _timm_names(ours: str) -> tuple[str, ...]:
    """Return what a tensor of our timm encoder may be called in timm's file.

    Ours has `model.` before it, some timm wrappers have a second one, others write `stages_0` for `stages.0`.
    """
    name = ours.removeprefix("model.")
    return name, name.removeprefix("model."), re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)


def _of_torchvisions_convnext(tensors: Tensors) -> dict[str, Tensor]:
    """Give torchvision's ConvNeXt timm's names: features 1, 3, 5, 7 are stages, 2, 4, 6 lead to the next."""
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[0] != "features" or len(parts) < 4:
            continue
        number, index = int(parts[1]), parts[2]
        if number == 0:
            found[".".join(["stem", index, *parts[3:]])] = tensor
        elif number % 2 == 0:
            found[".".join(["stages", str(number // 2), "downsample", index, *parts[3:]])] = tensor
        elif parts[3] == "layer_scale":
            found[f"stages.{number // 2}.blocks.{index}.gamma"] = tensor.flatten()
        else:
            part = _CONVNEXT_PARTS[parts[4]]
            found[".".join(["stages", str(number // 2), "blocks", index, part, *parts[5:]])] = tensor
    return found


def _of_the_authors_convnext(tensors: Tensors) -> dict[str, Tensor]:
    """Give a ConvNeXt of its authors, or of MMPretrain, timm's names; others stay as they are."""
    found = {}
    for key, tensor in tensors.items():
        parts = key.removeprefix("backbone.").split(".")
        if parts[:2] == ["downsample_layers", "0"]:
            key = ".".join(["stem", *parts[2:]])
        elif parts[0] == "downsample_layers":
            key = ".".join(["stages", parts[1], "downsample", *parts[2:]])
        elif parts[0] == "stages" and parts[2].isdigit():
            key = ".".join([*parts[:2], "blocks", parts[2], _AUTHORS_CONVNEXT.get(parts[3], parts[3]), *parts[4:]])
        found[key] = tensor
    return found


def _mobilenet_v2(tensors: Tensors, _: Tensors) -> dict[str, Tensor]:
    if "conv_stem.weight" not in tensors:
        return dict(tensors)
    return {_mobilenet_name(key): tensor for key, tensor in tensors.items()}


def _mobilenet_name(theirs: str) -> str:
    """Translate timm's name of a MobileNetV2 tensor to torchvision's, which is ours; unknown names stay."""
    outer = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1"}
    module, _, leaf = theirs.rpartition(".")
    if module in outer:
        return f"{outer[module]}.{leaf}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", module)
    if match is None:
        return theirs
    group, index, part = int(match[1]), int(match[2]), match[3]
    block = 1 + sum((1, 2, 3, 4, 3, 3, 1)[:group]) + index
    layer, within = (_FIRST_PARTS if group == 0 else _INVERTED_PARTS)[part]
    return f"features.{block}.conv.{layer}{'' if within is None else f'.{within}'}.{leaf}"


def _mscan(tensors: Tensors, _: Tensors) -> dict[str, Tensor]:
    """Give the authors' files MMSegmentation's names, which are ours: there the depthwise convolution is a module."""
    return {key.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv."): tensor for key, tensor in tensors.items()}


def _poolformer(tensors: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """Give a PoolFormer of timm, of its authors or of MMPretrain (`backbone.` before its names) our names.

    Norms of maps that are given out keep their starting values where a file has none.
    """
    found = {}
    for key, tensor in tensors.items():
        parts = key.removeprefix("backbone.").split(".")
        if parts[0] == "norm":  # of the authors' classifier
            continue
        if parts[:2] == ["stem", "conv"] or parts[:2] == ["patch_embed", "proj"]:
            parts = ["stem", parts[-1]]
        elif parts[0] == "stages":
            scales = {"layer_scale1": "layer_scale_1", "layer_scale2": "layer_scale_2"}
            parts = ["layers", *(scales.get(part, part) for part in parts[1:] if part not in ("conv", "scale"))]
        elif parts[0] == "network":
            number = int(parts[1])
            rest = ["blocks", *parts[2:]] if number % 2 == 0 else ["downsample", parts[-1]]
            parts = ["layers", str((number + 1) // 2), *rest]
        elif re.fullmatch(r"norm[0246]", parts[0]):
            parts[0] = f"norm{int(parts[0][4:]) // 2}"
        found[".".join(parts)] = tensor
    missing = [key for key in expected if re.match(r"norm\d\.", key) and key not in found]
    return found | {key: expected[key] for key in missing}


def _densenet(tensors: Tensors, _: Tensors) -> dict[str, Tensor]:
    """Give names of today: `norm.1` in a layer, as torchvision's files have it, is `norm1` since torch 0.4.1."""
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.")
    return {old.sub(r"\1\2.", key): tensor for key, tensor in tensors.items()}


def _efficientnet(tensors: Tensors, _: Tensors) -> dict[str, Tensor]:
    if "_conv_stem.weight" in tensors:
        return _of_first_port(tensors)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(_EFFICIENTNET_LAST)}
    if "features.0.0.weight" in tensors:
        return _of_torchvisions_efficientnet(tensors)
    firsts = _firsts([key.split(".")[1:3] for key in tensors if key.startswith("blocks.")])
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            group, part = int(parts[1]), parts[3]
            part = _DEPTHWISE_PARTS.get(part, part) if group == 0 else part
            key = ".".join(["blocks", str(firsts[group] + int(parts[2])), part, *parts[4:]])
        found[key] = tensor
    return found


def _of_torchvisions_efficientnet(tensors: Tensors) -> dict[str, Tensor]:
    blocks = [key.split(".") for key in tensors if ".block." in key]
    firsts = _firsts([(str(int(parts[1]) - 1), parts[2]) for parts in blocks])
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if ".block." not in key:
            key = key.replace("features.0.0.", "conv_stem.").replace("features.0.1.", "bn1.")
            found[key] = tensor
            continue
        group = int(parts[1]) - 1
        layer = int(parts[4]) + (group == 0)  # the first group does not widen
        own = _SQUEEZE[parts[5]] if layer == 2 else _TORCHVISION_PARTS[min(layer, 2)][parts[5]]
        found[f"blocks.{firsts[group] + int(parts[2])}.{own}.{parts[6]}"] = tensor
    return found


def _of_first_port(tensors: Tensors) -> dict[str, Tensor]:
    """Give an EfficientNet of the first port our names; what it has behind the blocks is left out."""
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            found[".".join(["blocks", parts[1], FIRST_PORT[parts[2]], *parts[3:]])] = tensor
        elif parts[0] in ("_conv_stem", "_bn0"):
            found[f"{'conv_stem' if parts[0] == '_conv_stem' else 'bn1'}.{parts[1]}"] = tensor
    return found


def _in_groups(tensors: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """Give the blocks of an EfficientNet, counted through, timm's names: group and place in it."""
    in_groups = {tuple(map(int, key.split(".")[2:4])) for key in expected if key.startswith("model.blocks.")}
    places = dict(enumerate(sorted(in_groups)))
    back = {ours: theirs for theirs, ours in _DEPTHWISE_PARTS.items()}
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[0] == "blocks" and int(parts[1]) in places:
            group, place = places[int(parts[1])]
            part = back.get(parts[2], parts[2]) if group == 0 else parts[2]
            key = ".".join(["blocks", str(group), str(place), part, *parts[3:]])
        found[key] = tensor
    return found


def _firsts(places: Sequence[Sequence[str]]) -> list[int]:
    """Return where each group of blocks begins, counted through, given (group, place) of all blocks."""
    depths: dict[int, int] = {}
    for group, place in places:
        depths[int(group)] = max(depths.get(int(group), 0), int(place) + 1)
    return [sum(depths.get(before, 0) for before in range(group)) for group in range(max(depths, default=0) + 1)]


_TWINS_PARTS = (
    (r"^backbone\.", ""),
    (r"\.projection\.", ".proj."),
    (r"^layers\.", "blocks."),
    (r"^position_encodings\.(\d+)\.proj\.", r"pos_block.\1.proj.0."),
    (r"^norm_list\.", "stage_norms."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
)
"""(pattern, ours) of a Twins of MMSegmentation."""


def _twins(tensors: Tensors, expected: Tensors) -> dict[str, Tensor]:
    """Give names of the authors, which are timm's and ours, to MMSegmentation's; leave a classifier's norm out.

    Norms of the stages' maps, which classifiers have none of, keep their starting values where the file has none.
    """
    found = {key: tensor for key, tensor in expected.items() if key.startswith("stage_norms.")}
    for key, tensor in tensors.items():
        for pattern, ours in _TWINS_PARTS:
            key = re.sub(pattern, ours, key)
        whole = re.fullmatch(r"(.*\.attn)\.attn\.in_proj_(weight|bias)", key)
        if whole:
            rows = len(tensor) // 3
            found |= {f"{whole[1]}.q.{whole[2]}": tensor[:rows], f"{whole[1]}.kv.{whole[2]}": tensor[rows:]}
        elif not key.startswith("norm."):
            found[key] = tensor
    return found


_BY_FAMILY: dict[str, Callable[[Tensors, Tensors], dict[str, Tensor]]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mscan": _mscan,
    "poolformer": _poolformer,
    "densenet": _densenet,
    "efficientnet": _efficientnet,
    "twins": _twins,
}
