"""DPT of MMSegmentation: `DPTHead`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.vit import chosen_blocks, vit_fields, vit_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.dpt import DPTConfig

_HEAD = {"reassemble_blocks", "convs", "fusion_blocks", "project", "conv_seg"}
_RESIZE = "decode_head.reassemble_blocks.resize_layers"
_LEVELS = 4
_PUBLISHED = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23)}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD or file.has("neck"):
        return None
    encoder = vit_fields(file)
    if encoder is None:
        return None
    name, options = encoder
    if file.stated("model.decode_head.align_corners"):
        raise WeightsError("model.decode_head.align_corners = True: logits of a DPT are upsampled without")
    projects = file.has("decode_head.reassemble_blocks.readout_projects")
    unit = "decode_head.fusion_blocks.0.res_conv_unit2.conv1"
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "encoder": name,
        "encoder_options": options,
        "blocks": chosen_blocks(file, _PUBLISHED, count=_LEVELS),
        "readout": "project" if projects else file.setting("model.decode_head.readout_type", "ignore"),
        "level_channels": tuple(file.shape(f"decode_head.convs.{level}.conv.weight")[1] for level in range(_LEVELS)),
        "finest_scale": file.shape(f"{_RESIZE}.0.weight")[2],
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "fusion_norm": file.has(f"{unit}.bn"),
        "fusion_bias": f"{unit}.conv.bias" in file.tensors,
    }


def renames(config: DPTConfig) -> Renames:
    """See `Importer`."""
    if config.coarsest_unit or config.doubled_logits or config.aux:
        raise WeightsError("MMSegmentation has only a DPT without coarsest_unit, doubled_logits and aux")
    block = "decode_head.fusion_blocks.{i}"
    return [
        *vit_renames(),
        ("decode_head.reassemble_blocks.projects.{i}.conv", "reassemble.{i}.project"),
        (f"{_RESIZE}.{{i}}", "reassemble.{i}.resize"),
        ("decode_head.reassemble_blocks.readout_projects.{i}.0", "reassemble.{i}.readout.project"),
        ("decode_head.convs.{i}.conv", "reassemble.{i}.convolve"),
        (f"{block}.project.conv", "fusions.{i}.project"),
        *(
            (f"{block}.res_conv_unit{unit}.conv{half}.{part}", f"fusions.{{i}}.unit{unit}.{part}{half}")
            for unit in (1, 2)
            for half in (1, 2)
            for part in ("conv", "bn")
        ),
        ("decode_head.project", "refine"),
        ("decode_head.conv_seg", "classifier"),
    ]


IMPORTER = Importer(source="mmseg", architecture="dpt", recognise=recognise, renames=renames)
