"""DPTForSemanticSegmentation, which transformers 4 and 5 name alike. It is the authors' network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.conversion.importers.vit import form_of, image_size, without_defaults
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.dpt import DPTConfig

_LAYER = "dpt.encoder.layer.{i}"
_FIRST = "dpt.encoder.layer.0"
_PATCHES = "dpt.embeddings.patch_embeddings.projection"
_RESIZE = "neck.reassemble_stage.layers.{i}.resize"
_UNIT = "neck.fusion_stage.layers.0.residual_layer1"

_UNUSED = ("dpt.layernorm", _UNIT)
"""The final norm, and the first residual unit of the coarsest level: in every file, and never run."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("neck.reassemble_stage", "neck.fusion_stage.layers.0"):
        return None
    if not file.has("head.head.4"):
        return None
    if file.has("backbone") or not file.has(_PATCHES, "dpt.embeddings.position_embeddings"):
        raise WeightsError(
            "a DPT around another backbone (is_hybrid, backbone_config): only the plain vision transformer is supported"
        )
    if not file.has("head.head.1.running_mean"):
        raise WeightsError(
            "a DPTForDepthEstimation, which has no classes; only DPTForSemanticSegmentation is supported"
        )
    encoder, options, depth = _encoder(file)
    levels = file.count("neck.convs.{i}")
    published = tuple(depth * (level + 1) // levels - 1 for level in range(levels))
    unit = "neck.fusion_stage.layers.0.residual_layer2"
    return {
        "num_classes": file.shape("head.head.4.weight")[0],
        "in_channels": file.shape(f"{_PATCHES}.weight")[1],
        "encoder": encoder,
        "encoder_options": options,
        "blocks": tuple(file.setting("backbone_out_indices", published)),
        "readout": _readout(file),
        "level_channels": tuple(file.shape(f"neck.convs.{level}.weight")[1] for level in range(levels)),
        "finest_scale": _finest_scale(file, levels),
        "channels": file.shape("neck.convs.0.weight")[0],
        "fusion_norm": file.has(f"{unit}.batch_norm1"),
        "fusion_bias": f"{unit}.convolution1.bias" in file.tensors,
        "doubled_logits": True,
        "aux": file.has("auxiliary_head.head.4"),
    }


def _encoder(file: ForeignWeights) -> tuple[str, dict[str, Any], int]:
    """Return the encoder's name, its options, and its depth."""
    width, _, patch_size, _ = file.shape(f"{_PATCHES}.weight")
    hidden = file.shape(f"{_FIRST}.intermediate.dense.weight")[0]
    name, form = form_of(file, width=width, hidden=hidden, heads="num_attention_heads")
    stated = file.stated("hidden_act")
    if stated not in (None, "gelu"):
        raise WeightsError(f"hidden_act = {stated!r}: only 'gelu' is supported")
    positions = "dpt.embeddings.position_embeddings"
    depth = file.count(_LAYER)
    options = {
        "depth": depth,
        "patch_size": patch_size,
        "image_size": image_size(file.shape(positions)[1] - 1, patch_size, file.stated("image_size"), tensor=positions),
        "final_norm": False,
        "qkv_bias": f"{_FIRST}.attention.attention.query.bias" in file.tensors,
        "position_resize": "bilinear",
        "position_antialias": False,
        "norm_eps": file.setting("layer_norm_eps", 1e-12),
    }
    return name, without_defaults(options, form), depth


def _readout(file: ForeignWeights) -> str:
    """Return how the class token is read out; only the matrix of "project" is in the weights."""
    if file.has("neck.reassemble_stage.readout_projects"):
        return "project"
    stated = file.stated("readout_type")
    if stated in ("add", "ignore"):
        return str(stated)
    raise WeightsError(
        f"no matrix of the readout in the weights, and readout_type = {stated!r} in config.json; expected 'add' or "
        "'ignore'"
    )


def _finest_scale(file: ForeignWeights, levels: int) -> int:
    """Return by how much the first level is larger than the grid, and make sure that each next one is half of it."""
    first = _RESIZE.replace("{i}", "0") + ".weight"
    scale = file.shape(first)[2] if first in file.tensors else 1
    stated = file.stated("reassemble_factors")
    expected = [scale / 2**level for level in range(levels)]
    if stated is not None and [float(factor) for factor in stated] != expected:
        raise WeightsError(f"reassemble_factors = {stated}: with a first level of {scale} only {expected} is supported")
    return scale


def renames(config: DPTConfig) -> Renames:
    """See `Importer`."""
    if config.coarsest_unit or not config.doubled_logits:
        raise WeightsError("Hugging Face has only the authors' DPT: doubled_logits, no coarsest_unit")
    block = "encoder.blocks.{i}"
    fusion = "neck.fusion_stage.layers.{i}"
    units = [
        (f"{fusion}.residual_layer{unit}.{theirs}{half}", f"fusions.{{i}}.unit{unit}.{ours}{half}")
        for unit in (1, 2)
        for half in (1, 2)
        for theirs, ours in (("convolution", "conv"), ("batch_norm", "bn"))
    ]
    heads = (("head.head", "refine", "classifier"), ("auxiliary_head.head", "aux_head.conv", "aux_head.classifier"))
    return [
        (_PATCHES, "encoder.patch_embed.proj"),
        ("dpt.embeddings.cls_token", "encoder.cls_token"),
        ("dpt.embeddings.position_embeddings", "encoder.pos_embed"),
        (f"{_LAYER}.layernorm_before", f"{block}.norm1"),
        (f"{_LAYER}.layernorm_after", f"{block}.norm2"),
        (f"{_LAYER}.attention.output.dense", f"{block}.attn.proj"),
        (f"{_LAYER}.intermediate.dense", f"{block}.mlp.fc1"),
        (f"{_LAYER}.output.dense", f"{block}.mlp.fc2"),
        ("neck.reassemble_stage.layers.{i}.projection", "reassemble.{i}.project"),
        (_RESIZE, "reassemble.{i}.resize"),
        ("neck.reassemble_stage.readout_projects.{i}.0", "reassemble.{i}.readout.project"),
        ("neck.convs.{i}", "reassemble.{i}.convolve"),
        (f"{fusion}.projection", "fusions.{i}.project"),
        *units,
        *(
            pair
            for theirs, conv, classifier in heads
            for pair in ((f"{theirs}.0", f"{conv}.conv"), (f"{theirs}.1", f"{conv}.bn"), (f"{theirs}.4", classifier))
        ),
    ]


def stacks(config: DPTConfig) -> Sequence[Stack]:
    """See `Importer`: queries, keys and values are three matrices."""
    return [
        Stack(
            theirs={f"{_LAYER}.attention.attention.{part}": 1 for part in ("query", "key", "value")},
            ours={"encoder.blocks.{i}.attn.qkv": 1},
        )
    ]


def constants(config: DPTConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    width, tokens = config.channels, FORMS[config.encoder.name].width
    found = {"dpt.layernorm.weight": torch.ones(tokens), "dpt.layernorm.bias": torch.zeros(tokens)}
    for half in (1, 2):
        found[f"{_UNIT}.convolution{half}.weight"] = torch.zeros(width, width, 3, 3)
        if config.fusion_bias:
            found[f"{_UNIT}.convolution{half}.bias"] = torch.zeros(width)
        if config.fusion_norm:
            norm = f"{_UNIT}.batch_norm{half}"
            found |= {f"{norm}.{name}": torch.ones(width) for name in ("weight", "running_var")}
            found |= {f"{norm}.{name}": torch.zeros(width) for name in ("bias", "running_mean")}
            found[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return found


IMPORTER = Importer(
    source="hf",
    architecture="dpt",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    dropped=_UNUSED,
    constants=constants,
)
