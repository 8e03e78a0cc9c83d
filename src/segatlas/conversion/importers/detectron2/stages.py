"""Backbone, pyramid and the two stages in Detectron2's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.detectron2.source import is_bgr
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stages import resnet_name

BODY, RPN, BOX, MASK = (
    "backbone.bottom_up",
    "proposal_generator.rpn_head",
    "roi_heads.box_predictor",
    "roi_heads.mask_head",
)

DROPPED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator")
"""What older files hold besides: constants of the configuration."""


def layer_renames(body: str = BODY) -> list[tuple[str, str]]:
    """Return the names of a ResNet's layers below `body`; a convolution's norm lies below it."""
    found: list[tuple[str, str]] = []
    for layer in (1, 2, 3, 4):
        theirs, ours = f"{body}.res{layer + 1}.{{i}}", f"encoder.layer{layer}.{{i}}"
        for index in (1, 2, 3):
            found += [
                (f"{theirs}.conv{index}.norm", f"{ours}.bn{index}"),
                (f"{theirs}.conv{index}", f"{ours}.conv{index}"),
            ]
        found += [(f"{theirs}.shortcut.norm", f"{ours}.downsample.1"), (f"{theirs}.shortcut", f"{ours}.downsample.0")]
    return found


def has_boxes(file: ForeignWeights) -> bool:
    """Tell whether these are two stages on a pyramid."""
    return file.has("backbone.fpn_lateral2", f"{RPN}.objectness_logits", f"{BOX}.cls_score")


def has_stages(file: ForeignWeights) -> bool:
    """Tell whether these are two stages with masks on a pyramid."""
    return has_boxes(file) and file.has(f"{MASK}.predictor")


def stage_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of encoder, pyramid and stages, None for another backbone."""
    fields = box_fields(file)
    if fields is None:
        return None
    return {
        **fields,
        "mask_convs": sum(file.has(f"{MASK}.mask_fcn{index}") for index in range(1, 9)),
        "mask_channels": file.shape(f"{MASK}.predictor.weight")[1],
    }


def box_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return those of all but the mask head."""
    name = resnet_name(file, f"{BODY}.res{{layer}}", first=2)
    if name is None:
        return None
    sizes = file.stated("MODEL.ANCHOR_GENERATOR.SIZES")
    top = file.stated("TEST.DETECTIONS_PER_IMAGE")
    before, after = (file.stated(f"MODEL.RPN.{key}_NMS_TOPK_TEST") for key in ("PRE", "POST"))
    stated = {
        "proposal_iou": file.stated("MODEL.RPN.NMS_THRESH"),
        "score_threshold": file.stated("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
        "nms_iou": file.stated("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
        "top": top,
        "proposals": (before, after) if before and after else None,
        "anchor_sizes": tuple(float(level[0]) for level in sizes) if sizes else None,
    }
    return {
        "encoder": name,
        "encoder_options": {"stride_first": file.setting("MODEL.RESNETS.STRIDE_IN_1X1", True)},
        **{key: value for key, value in stated.items() if value is not None},
        "bgr": is_bgr(file),
        "num_classes": file.shape(f"{BOX}.cls_score.weight")[0] - 1,
        "in_channels": file.shape(f"{BODY}.stem.conv1.weight")[1],
        "levels": sum(file.has(f"backbone.fpn_lateral{level}") for level in (2, 3, 4, 5)),
        "neck_channels": file.shape("backbone.fpn_output2.weight")[0],
        "box_channels": file.shape(f"{BOX}.cls_score.weight")[1],
        "box_layers": sum(file.has(f"roi_heads.box_head.fc{index}") for index in range(1, 5)),
    }


def body_renames(body: str) -> Renames:
    """Return the table of a ResNet whose names begin so; a convolution's norm lies below it."""
    stem = [(f"{body}.stem.conv1.norm", "encoder.bn1"), (f"{body}.stem.conv1", "encoder.conv1")]
    return [*stem, *layer_renames(body)]


def stage_renames() -> Renames:
    """Return the table of encoder, pyramid and stages."""
    masks = [(f"{MASK}.mask_fcn{index + 1}", f"stages.mask_head.convs.{index}") for index in range(8)]
    return [
        *box_renames(),
        *masks,
        (f"{MASK}.deconv", "stages.mask_head.up"),
        (f"{MASK}.predictor", "stages.mask_head.classifier"),
    ]


def box_renames() -> Renames:
    """Return the table of all but the mask head."""
    pyramid = [
        (f"backbone.fpn_{theirs}{level + 2}", f"neck.{theirs}.{level}")
        for theirs in ("lateral", "output")
        for level in range(4)
    ]
    boxes = [(f"roi_heads.box_head.fc{index + 1}", f"stages.box_head.layers.{index}") for index in range(4)]
    return [
        *body_renames(BODY),
        *pyramid,
        (f"{RPN}.conv", "stages.rpn.convs.0"),
        (f"{RPN}.objectness_logits", "stages.rpn.scores"),
        (f"{RPN}.anchor_deltas", "stages.rpn.deltas"),
        *boxes,
        (f"{BOX}.cls_score", "stages.box_head.classifier"),
        (f"{BOX}.bbox_pred", "stages.box_head.deltas"),
    ]
