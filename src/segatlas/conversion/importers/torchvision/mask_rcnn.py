"""torchvision's Mask R-CNN, both versions: `backbone.body.*`, `backbone.fpn.*`, `rpn.*`, `roi_heads.*`.

Files of before 0.13 call pyramid, proposal head and mask head otherwise; both spellings are read, the newer is written.
Theirs count "no object" as class 0, with a box and a mask of its own that nothing reads; ours has it last, without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.config.objects import TORCHVISION
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stages import resnet_name
from segatlas.models.mask_rcnn import V1, V2, MaskRCNNConfig

BOX, MASK = "roi_heads.box_predictor", "roi_heads.mask_predictor"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.body.conv1.weight", "rpn.head.cls_logits", f"{BOX}.cls_score", f"{MASK}.mask_fcn_logits"):
        return None
    name = resnet_name(file, "backbone.body.layer{layer}")
    if name is None:
        return None
    second = file.has("roi_heads.box_head.0.0")
    # frozen norms have no counters; those of the published first version add nothing to the variance
    counted = file.has("backbone.body.bn1.num_batches_tracked")
    eps = 1e-5 if counted else file.setting("norm_eps", 0.0)
    return {
        "encoder": name,
        "encoder_options": {"norm_eps": eps},
        **(V2 if second else V1),
        "num_classes": file.shape(f"{BOX}.cls_score.weight")[0] - 1,
        "in_channels": file.shape("backbone.body.conv1.weight")[1],
        "neck_channels": file.shape("rpn.head.cls_logits.weight")[1],
        "box_channels": file.shape(f"{BOX}.cls_score.weight")[1],
        "mask_channels": file.shape(f"{MASK}.mask_fcn_logits.weight")[1],
    }


def renames(config: MaskRCNNConfig) -> Renames:
    """See `Importer`."""
    fpn = "backbone.fpn"
    if config.norm:
        pyramid = [
            (f"{fpn}.inner_blocks.{{i}}", "neck.lateral.{i}"),
            (f"{fpn}.layer_blocks.{{i}}", "neck.output.{i}"),
        ]
        masks = [
            ("roi_heads.mask_head.{i}.0", "stages.mask_head.convs.{i}.conv"),
            ("roi_heads.mask_head.{i}.1", "stages.mask_head.convs.{i}.bn"),
        ]
    else:
        pyramid = [
            (f"{fpn}.inner_blocks.{{i}}.0", "neck.lateral.{i}"),
            (f"{fpn}.layer_blocks.{{i}}.0", "neck.output.{i}"),
            (f"{fpn}.inner_blocks.{{i}}", "neck.lateral.{i}"),
            (f"{fpn}.layer_blocks.{{i}}", "neck.output.{i}"),
        ]
        masks = [("roi_heads.mask_head.{i}.0", "stages.mask_head.convs.{i}")]
        masks += [(f"roi_heads.mask_head.mask_fcn{i + 1}", f"stages.mask_head.convs.{i}") for i in range(4)]
    first = config.box_convs + 1  # behind the convolutions their maps are flattened
    boxes = [
        ("roi_heads.box_head.fc6", "stages.box_head.layers.0"),
        ("roi_heads.box_head.fc7", "stages.box_head.layers.1"),
    ]
    if config.box_convs:
        boxes = [
            (f"roi_heads.box_head.{first}", "stages.box_head.layers.0"),
            ("roi_heads.box_head.{i}.0", "stages.box_head.convs.{i}.conv"),
            ("roi_heads.box_head.{i}.1", "stages.box_head.convs.{i}.bn"),
        ]
    return [
        ("backbone.body", "encoder"),
        *pyramid,
        ("rpn.head.conv.{i}.0", "stages.rpn.convs.{i}"),
        ("rpn.head.conv", "stages.rpn.convs.0"),
        ("rpn.head.cls_logits", "stages.rpn.scores"),
        ("rpn.head.bbox_pred", "stages.rpn.deltas"),
        *boxes,
        (f"{BOX}.cls_score", "stages.box_head.classifier"),
        (f"{BOX}.bbox_pred", "stages.box_head.deltas"),
        *masks,
        (f"{MASK}.conv5_mask", "stages.mask_head.up"),
        (f"{MASK}.mask_fcn_logits", "stages.mask_head.classifier"),
    ]


def changes(config: MaskRCNNConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: the rows of "no object" go from the first place to the last, or out."""
    found: dict[str, tuple[Change, Change]] = {}
    for kind in ("weight", "bias"):
        found[f"stages.box_head.classifier.{kind}"] = (_first_to_last, _last_to_first)
        found[f"stages.box_head.deltas.{kind}"] = (_without_four, _with_four)
        found[f"stages.mask_head.classifier.{kind}"] = (_without_one, _with_one)
    return found


def _first_to_last(rows: Tensor) -> Tensor:
    return rows.roll(-1, 0)


def _last_to_first(rows: Tensor) -> Tensor:
    return rows.roll(1, 0)


def _without_four(rows: Tensor) -> Tensor:
    return rows[4:].clone()


def _with_four(rows: Tensor) -> Tensor:
    return torch.cat([rows.new_zeros((4, *rows.shape[1:])), rows])


def _without_one(rows: Tensor) -> Tensor:
    return rows[1:].clone()


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows.new_zeros((1, *rows.shape[1:])), rows])


IMPORTER = Importer(
    source="torchvision",
    architecture="mask_rcnn",
    recognise=recognise,
    renames=renames,
    changes=changes,
    objects=TORCHVISION,
    resize="fit:800x1333",
)
