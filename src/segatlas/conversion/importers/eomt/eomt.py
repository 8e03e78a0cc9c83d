"""The authors' EoMT on DINOv2, in their published files `pytorch_model.bin`. On DINOv3 these hold differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segatlas.checkpoint.preprocessing import default_preprocessing
from segatlas.config.objects import MASK2FORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.query_facts import WITH_THINGS, query_facts, square_windows
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.vit import dino_options, image_size
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.eomt import EoMTConfig, doublings

_BACKBONE = "encoder.backbone"
_PATCHES = f"{_BACKBONE}.patch_embed.proj.weight"
_POSITIONS = f"{_BACKBONE}.pos_embed"
QUERIES_FOR_CLASS_MAPS = 100
"""How many queries the authors' networks for class maps have; all others have 200."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("q.weight", "class_head", "mask_head.4", "upscale.0.conv1", "attn_mask_probs"):
        return None
    if file.has(f"{_BACKBONE}.patch_embed.register_tokens"):
        raise WeightsError(
            "an EoMT on DINOv3 in the authors' layout: their files hold the differences from DINOv3's weights, which "
            "no network is; add these as the authors do, and convert what transformers saves of it"
        )
    width, channels, patch, _ = file.shape(_PATCHES)
    if (found := file.count("upscale.{i}")) != doublings(patch):
        raise WeightsError(f"{found} upsamplings of patches of {patch}: only {doublings(patch)} are supported")
    first, second = (file.shape(f"{_BACKBONE}.blocks.0.mlp.{part}.weight") for part in ("fc1", "fc2"))
    size = image_size(file.shape(_POSITIONS)[1], patch, None, tensor=_POSITIONS)
    told = {
        "depth": file.count(f"{_BACKBONE}.blocks.{{i}}"),
        "patch_size": patch,
        "image_size": size,
        "class_position": False,
        "registers": file.shape(f"{_BACKBONE}.reg_token")[1],
        "layer_scale": 1e-5 if file.has(f"{_BACKBONE}.blocks.0.ls1") else 0.0,
    }
    name, options = dino_options(
        file,
        "dinov2",
        width=width,
        hidden=second[1],
        gated=first[0] != second[1],
        heads="num_heads",
        told=told,
    )
    classes, side = file.shape("class_head.weight")[0] - 1, size[0]
    return {
        "padded_to": None if _is_for_class_maps(classes, file.shape("q.weight")[0]) else side,
        "num_classes": classes,
        "in_channels": channels,
        "encoder": name,
        "encoder_options": options,
        "queries": file.shape("q.weight")[0],
        "query_blocks": file.shape("attn_mask_probs")[0],
    }


def renames(config: EoMTConfig) -> Renames:
    """See `Importer`."""
    form, options = FORMS[config.encoder.name], config.encoder.options
    if form.rotary or options.class_position or not options.qkv_bias or options.relative_positions:
        raise WeightsError(f"the authors' EoMT has no encoder {config.encoder.name} with these options")
    return [
        (_BACKBONE, "encoder"),
        ("q.weight", "queries"),
        ("class_head", "classifier"),
        ("mask_head", "mask_head"),
        ("upscale.{i}.conv1", "upsampling.{i}.0"),
        ("upscale.{i}.conv2", "upsampling.{i}.2"),
        ("upscale.{i}.norm", "upsampling.{i}.3"),
        ("attn_mask_probs", "mask_fractions"),
    ]


def _is_for_class_maps(classes: int, queries: int) -> bool:
    """Tell whether it is published for class maps, by its numbers of classes and queries."""
    return classes in WITH_THINGS and queries == QUERIES_FOR_CLASS_MAPS


def card_fields(file: ForeignWeights, config: EoMTConfig) -> Mapping[str, Any]:
    """See `Importer`. Images are as large as the stored positions are for: all of it inside, but for class maps."""
    of_class_maps = _is_for_class_maps(config.num_classes, config.queries)
    told = "panoptic" if config.num_classes in WITH_THINGS and not of_class_maps else None
    found = query_facts(file, config.num_classes, MASK2FORMER, task=told)
    side = config.encoder.options.image_size[0]
    resize = f"short:{side}" if of_class_maps else f"fit:{side}x{side}"
    found["preprocessing"] = replace(default_preprocessing(config.in_channels), resize=resize)
    return found | {"inference": square_windows(side)} if of_class_maps else found


IMPORTER = Importer(
    source="eomt",
    architecture="eomt",
    recognise=recognise,
    renames=renames,
    card_fields=card_fields,
    dropped=("encoder.pixel_mean", "encoder.pixel_std", "criterion"),
)
