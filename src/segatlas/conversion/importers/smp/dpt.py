"""DPT of segmentation-models-pytorch, on a plain transformer of timm."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.vit import form_of, image_size, without_defaults
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.dpt import DPTConfig

_VIT = "encoder.model"
_PATCHES = f"{_VIT}.patch_embed.proj.weight"
_POSITIONS = f"{_VIT}.pos_embed"
_FINEST_STRIDE = 4
_PATCH_SIZES = (4, 8, 16, 32)
_IMAGENET = 1000

_UNUSED = (f"{_VIT}.norm", f"{_VIT}.head", f"{_VIT}.fc_norm", f"{_VIT}.attn_pool")
"""The final norm and the classifier of the transformer: in every file, and never run."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("decoder.reassemble_blocks.0.project_to_out_channel", "segmentation_head.head.4"):
        return None
    name, options, patch_size, depth = _encoder(file)
    levels = file.count("decoder.reassemble_blocks.{i}")
    usual = tuple(int(depth / levels * (level + 1)) - 1 for level in range(levels))
    stated = file.stated("encoder_output_indices")
    last = "decoder.reassemble_blocks.{i}.project_to_out_channel.weight"
    return {
        "num_classes": file.shape("segmentation_head.head.4.weight")[0],
        "in_channels": file.shape(_PATCHES)[1],
        "encoder": name,
        "encoder_options": options,
        "blocks": usual if stated is None else tuple(block % depth for block in stated),
        "readout": _readout(file),
        "level_channels": tuple(file.shape(last.replace("{i}", str(level)))[0] for level in range(levels)),
        "finest_scale": patch_size // _FINEST_STRIDE,
        "channels": file.shape("segmentation_head.head.4.weight")[1],
        "coarsest_unit": True,
        "doubled_logits": True,
    }


def _encoder(file: ForeignWeights) -> tuple[str, dict[str, Any], int, int]:
    """Return the encoder's name and options, its patch size and depth."""
    width, _, patch_size, _ = file.shape(_PATCHES)
    called = str(file.stated("encoder_name") or "")
    if patch_size not in _PATCH_SIZES or "quickgelu" in called:
        raise WeightsError(
            f"a transformer {called or 'with patches of ' + str(patch_size)}: only patches of 4, 8, 16 and 32 pixels, "
            "and GELU, are supported"
        )
    name, form = form_of(file, width=width, hidden=file.shape(f"{_VIT}.blocks.0.mlp.fc1.weight")[0], heads="")
    has_class = f"{_VIT}.cls_token" in file.tensors
    rows = file.shape(_POSITIONS)[1]
    if has_class and isqrt(rows) ** 2 == rows:
        raise WeightsError(f"{_POSITIONS} has no row for the class token: such a transformer is not supported here")
    depth = file.count(f"{_VIT}.blocks.{{i}}")
    options = {
        "depth": depth,
        "patch_size": patch_size,
        "image_size": image_size(rows - has_class, patch_size, None, tensor=_POSITIONS),
        "class_token": has_class,
        "registers": file.shape(f"{_VIT}.reg_token")[1] if file.has(f"{_VIT}.reg_token") else 0,
        "patch_bias": file.has(f"{_VIT}.patch_embed.proj.bias"),
        "pre_norm": file.has(f"{_VIT}.norm_pre"),
        "final_norm": False,
        "qkv_bias": file.has(f"{_VIT}.blocks.0.attn.qkv.bias"),
        "layer_scale": 1e-5 if file.has(f"{_VIT}.blocks.0.ls1") else 0.0,
    }
    return name, without_defaults(options, form), patch_size, depth


def _readout(file: ForeignWeights) -> str:
    """Return how the class token is read out; only the matrix of "cat" is in the weights."""
    if file.has("decoder.projection_blocks.0.project"):
        return "project"
    stated = file.stated("decoder_readout")
    if stated not in ("add", "ignore"):
        raise WeightsError(
            f"no matrix of the readout in the weights, and decoder_readout = {stated!r}; expected 'add' or 'ignore' in "
            "a config.json beside them"
        )
    return str(stated)


def renames(config: DPTConfig) -> Renames:
    """See `Importer`."""
    if not config.coarsest_unit or not config.doubled_logits or config.aux:
        raise WeightsError(
            "segmentation-models-pytorch has only a DPT with coarsest_unit and doubled_logits, and without aux"
        )
    level, block = "decoder.reassemble_blocks.{i}", "decoder.fusion_blocks.{i}"
    return [
        (_VIT, "encoder"),
        ("decoder.projection_blocks.{i}.project.0", "reassemble.{i}.readout.project"),
        (f"{level}.project_to_out_channel", "reassemble.{i}.project"),
        (f"{level}.upsample", "reassemble.{i}.resize"),
        (f"{level}.project_to_feature_dim", "reassemble.{i}.convolve"),
        (f"{block}.project", "fusions.{i}.project"),
        *(
            (f"{block}.residual_conv_block{unit}.{theirs}_{half}", f"fusions.{{i}}.unit{unit}.{ours}{half}")
            for unit in (1, 2)
            for half in (1, 2)
            for theirs, ours in (("conv", "conv"), ("batch_norm", "bn"))
        ),
        ("segmentation_head.head.0", "refine.conv"),
        ("segmentation_head.head.1", "refine.bn"),
        ("segmentation_head.head.4", "classifier"),
    ]


def constants(config: DPTConfig) -> Mapping[str, Tensor]:
    """See `Importer`: a classifier of 1000 classes, as timm makes it."""
    width = FORMS[config.encoder.name].width
    return {
        f"{_VIT}.norm.weight": torch.ones(width),
        f"{_VIT}.norm.bias": torch.zeros(width),
        f"{_VIT}.head.weight": torch.zeros(_IMAGENET, width),
        f"{_VIT}.head.bias": torch.zeros(_IMAGENET),
    }


IMPORTER = Importer(
    source="smp",
    architecture="dpt",
    recognise=recognise,
    renames=renames,
    dropped=_UNUSED,
    constants=constants,
)
