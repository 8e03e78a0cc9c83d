"""MMDetection's CondInst on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segatlas.config.objects import MMDET
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.backbones import encoder_fields, encoder_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.models.condinst import CondInstConfig

BOX, MASK = "bbox_head", "mask_head.mask_feature_head"
OBJECTS = replace(MMDET, strict=True)
"""Masks are cut above one half, not at it."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("neck.fpn_convs.0.conv.weight", f"{BOX}.controller", f"{BOX}.conv_centerness", f"{MASK}.conv_pred"):
        return None
    encoder = encoder_fields(file, output_stride=32)
    features = file.shape(f"{MASK}.conv_pred.weight")[0]
    inner = file.stated("model.mask_head.feat_channels") or features
    layers = _layers(file.shape(f"{BOX}.controller.weight")[0], features, inner)
    if encoder is None or layers is None:
        return None
    levels, all_levels = file.count("neck.lateral_convs.{i}"), file.count("neck.fpn_convs.{i}")
    ranges = file.stated(f"model.{BOX}.regress_ranges") or [(0, 64 << level) for level in range(all_levels)]
    return {
        **encoder,
        **_stated(file),
        "bgr": is_bgr(file),
        "num_classes": file.shape(f"{BOX}.conv_cls.weight")[0],
        "in_channels": file.shape("backbone.conv1.weight")[1] if file.has("backbone.conv1.weight") else 3,
        "levels": levels,
        "coarser_levels": all_levels - levels,
        "object_sizes": tuple(float(most) for _, most in ranges[: all_levels - 1]),
        "neck_channels": file.shape("neck.fpn_convs.0.conv.weight")[0],
        "head_convs": file.count(f"{BOX}.reg_convs.{{i}}"),
        "head_channels": file.shape(f"{BOX}.controller.weight")[1],
        "mask_levels": file.count(f"{MASK}.convs_all_levels.{{i}}"),
        "mask_convs": file.count(f"{MASK}.conv_branch.{{i}}"),
        "mask_channels": file.shape(f"{MASK}.conv_pred.weight")[1],
        "mask_features": features,
        "dynamic_layers": layers,
        "dynamic_channels": inner,
    }


def _layers(weights: int, features: int, inner: int) -> int | None:
    """Return how many layers an object's network of so many weights has, None where they are not whole ones."""
    between = weights - (features + 3) * inner - (inner + 1)
    return None if between < 0 or between % (inner * (inner + 1)) else 2 + between // (inner * (inner + 1))


def _stated(file: ForeignWeights) -> dict[str, Any]:
    """Return the fields that only settings tell."""
    test, mask = "model.test_cfg", "model.mask_head"
    above, below = file.stated(f"{mask}.mask_feature_head.mask_stride"), file.stated(f"{mask}.mask_out_stride")
    found = {
        "groups": file.stated(f"model.{BOX}.norm_cfg.num_groups"),
        "mask_upsampling": above // below if above and below else None,
        "offset_unit": file.stated(f"{mask}.size_of_interest"),
        "center_radius": file.stated(f"model.{BOX}.center_sample_radius"),
        "score_threshold": file.stated(f"{test}.score_thr"),
        "candidates": file.stated(f"{test}.nms_pre"),
        "nms_iou": file.stated(f"{test}.nms.iou_threshold"),
        "top": file.stated(f"{test}.max_per_img"),
    }
    return {key: value for key, value in found.items() if value is not None}


def renames(config: CondInstConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("neck.lateral_convs.{i}.conv", "neck.lateral.{i}"),
        *((f"neck.fpn_convs.{config.levels + i}.conv", f"coarser.{i}") for i in range(config.coarser_levels)),
        ("neck.fpn_convs.{i}.conv", "neck.output.{i}"),
        *_tower("cls_convs", "class_tower"),
        *_tower("reg_convs", "box_tower"),
        (f"{BOX}.conv_cls", "head.classifier"),
        (f"{BOX}.conv_reg", "head.distances"),
        (f"{BOX}.conv_centerness", "head.centerness"),
        (f"{BOX}.controller", "head.controller"),
        (f"{BOX}.scales.{{i}}.scale", "head.scales.{i}"),
        *_blocks("convs_all_levels.{}.conv{}", "levels.{}", config.mask_levels),
        *_blocks("conv_branch.{}", "convs.{}", config.mask_convs),
        (f"{MASK}.conv_pred", "mask_branch.output"),
    ]


def _tower(theirs: str, ours: str) -> Renames:
    return [(f"{BOX}.{theirs}.{{i}}.{one}", f"head.{ours}.{{i}}.{other}") for one, other in _PARTS]


_PARTS = (("conv", "conv"), ("gn", "norm"))


def _blocks(theirs: str, ours: str, count: int) -> Renames:
    return [(f"{MASK}.{theirs.format(i, i)}", f"mask_branch.{ours.format(i)}") for i in range(count)]


IMPORTER = Importer(source="mmdet", architecture="condinst", recognise=recognise, renames=renames, objects=OBJECTS)
