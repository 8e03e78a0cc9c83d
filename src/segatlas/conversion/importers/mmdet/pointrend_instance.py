"""MMDetection's PointRend on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import MMDET
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.stages import MASK, POINT, box_fields, has_boxes, stage_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.models.pointrend_instance import PointRendInstanceConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_boxes(file) or not file.has(f"{MASK}.downsample_conv", f"{MASK}.fc_logits", f"{POINT}.fc_logits"):
        return None
    fields = box_fields(file)
    if fields is None:
        return None
    test = "model.test_cfg.rcnn"
    stated = {
        "subdivisions": file.stated(f"{test}.subdivision_steps"),
        "subdivision_points": file.stated(f"{test}.subdivision_num_points"),
    }
    return {
        **fields,
        **{key: value for key, value in stated.items() if value is not None},
        "mask_convs": file.count(f"{MASK}.convs.{{i}}"),
        "mask_channels": file.shape(f"{MASK}.downsample_conv.conv.weight")[0],
        "mask_layers": file.count(f"{MASK}.fcs.{{i}}"),
        "mask_width": file.shape(f"{MASK}.fc_logits.weight")[1],
        "point_layers": file.count(f"{POINT}.fcs.{{i}}"),
        "point_channels": file.shape(f"{POINT}.fcs.0.conv.weight")[0],
    }


def renames(config: PointRendInstanceConfig) -> Renames:
    """See `Importer`."""
    return [
        (f"{MASK}.downsample_conv.conv", "stages.mask_head.down"),
        (f"{MASK}.fcs.{{i}}", "stages.mask_head.layers.{i}"),
        (f"{MASK}.fc_logits", "stages.mask_head.classifier"),
        (f"{POINT}.fcs.{{i}}.conv", "stages.point_head.layers.{i}"),
        (f"{POINT}.fc_logits", "stages.point_head.classifier"),
        *stage_renames(config.encoder.name),
    ]


IMPORTER = Importer(
    source="mmdet", architecture="pointrend_instance", recognise=recognise, renames=renames, objects=MMDET
)
