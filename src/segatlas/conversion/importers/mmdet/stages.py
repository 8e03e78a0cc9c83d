"""Backbone, pyramid and the two stages in MMDetection's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.backbones import encoder_fields, encoder_renames
from segatlas.conversion.importers.renames import Renames

BOX, MASK, POINT = "roi_head.bbox_head", "roi_head.mask_head", "roi_head.point_head"
STRIDES = (4, 8, 16, 32, 64)


def has_boxes(file: ForeignWeights) -> bool:
    """Tell whether these are two stages on a pyramid."""
    return file.has("neck.fpn_convs.0.conv.weight", "rpn_head.rpn_cls", f"{BOX}.fc_cls")


def has_stages(file: ForeignWeights) -> bool:
    """Tell whether these are two stages with masks on a pyramid."""
    return has_boxes(file) and file.has(f"{MASK}.conv_logits")


def stage_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of encoder, pyramid and stages, None for another backbone."""
    fields = box_fields(file)
    if fields is None:
        return None
    return {
        **fields,
        "mask_convs": file.count(f"{MASK}.convs.{{i}}"),
        "mask_channels": file.shape(f"{MASK}.conv_logits.weight")[1],
    }


def box_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return those of all but the mask head."""
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    scales = file.stated("model.rpn_head.anchor_generator.scales") or (8,)
    test = "model.test_cfg"
    top = file.stated(f"{test}.rcnn.max_per_img")
    before, after = file.stated(f"{test}.rpn.nms_pre"), file.stated(f"{test}.rpn.max_per_img")
    stated = {
        "proposal_iou": file.stated(f"{test}.rpn.nms.iou_threshold"),
        "score_threshold": file.stated(f"{test}.rcnn.score_thr"),
        "nms_iou": file.stated(f"{test}.rcnn.nms.iou_threshold"),
        "class_agnostic": file.stated(f"{test}.rcnn.nms.class_agnostic"),
        "top": top,
        "proposals": (before, after) if before and after else None,
        "anchor_sizes": tuple(float(scales[0] * stride) for stride in STRIDES),
    }
    return {
        **encoder,
        **{key: value for key, value in stated.items() if value is not None},
        "shrink_limit": True,
        "proposal_rank": "probability",
        "bgr": is_bgr(file),
        "num_classes": file.shape(f"{BOX}.fc_cls.weight")[0] - 1,
        "in_channels": file.shape("backbone.conv1.weight")[1] if file.has("backbone.conv1.weight") else 3,
        "levels": file.count("neck.fpn_convs.{i}"),
        "neck_channels": file.shape("neck.fpn_convs.0.conv.weight")[0],
        "box_channels": file.shape(f"{BOX}.fc_cls.weight")[1],
        "box_layers": file.count(f"{BOX}.shared_fcs.{{i}}"),
    }


def stage_renames(encoder: str) -> Renames:
    """Return the table of these."""
    return [
        *encoder_renames(encoder),
        ("neck.lateral_convs.{i}.conv", "neck.lateral.{i}"),
        ("neck.fpn_convs.{i}.conv", "neck.output.{i}"),
        ("rpn_head.rpn_conv", "stages.rpn.convs.0"),
        ("rpn_head.rpn_cls", "stages.rpn.scores"),
        ("rpn_head.rpn_reg", "stages.rpn.deltas"),
        (f"{BOX}.shared_fcs.{{i}}", "stages.box_head.layers.{i}"),
        (f"{BOX}.fc_cls", "stages.box_head.classifier"),
        (f"{BOX}.fc_reg", "stages.box_head.deltas"),
        (f"{MASK}.convs.{{i}}.conv", "stages.mask_head.convs.{i}"),
        (f"{MASK}.upsample", "stages.mask_head.up"),
        (f"{MASK}.conv_logits", "stages.mask_head.classifier"),
    ]
