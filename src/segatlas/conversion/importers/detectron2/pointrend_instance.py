"""Detectron2's PointRend for objects on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.detectron2.stages import DROPPED, MASK, box_fields, box_renames, has_boxes
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.models.pointrend_instance import PointRendInstanceConfig

HEADS = {
    (f"{MASK}.coarse_head", f"{MASK}.point_head"): "fc",
    ("roi_heads.mask_coarse_head", "roi_heads.mask_point_head"): "coarse_mask_fc",
}
"""Coarse mask head and point head -> what the first one's layers are called; the second line is that of older files."""

MOST_LAYERS = 8


def heads_of(file: ForeignWeights) -> tuple[str, str, str] | None:
    """Return what the two heads and the layers of the first are called in a file, None where it has none."""
    for (coarse, point), layer in HEADS.items():
        if file.has(f"{coarse}.reduce_spatial_dim_conv", f"{coarse}.prediction", f"{point}.predictor"):
            return coarse, point, layer
    return None


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    heads = heads_of(file)
    if heads is None or not has_boxes(file):
        return None
    fields = box_fields(file)
    if fields is None:
        return None
    coarse, point, layer = heads
    stated = {
        "subdivisions": file.stated("MODEL.POINT_HEAD.SUBDIVISION_STEPS"),
        "subdivision_points": file.stated("MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS"),
    }
    numbers = range(1, MOST_LAYERS + 1)
    return {
        **fields,
        **{key: value for key, value in stated.items() if value is not None},
        "mask_channels": file.shape(f"{coarse}.reduce_spatial_dim_conv.weight")[0],
        "mask_layers": sum(file.has(f"{coarse}.{layer}{number}") for number in numbers),
        "mask_width": file.shape(f"{coarse}.prediction.weight")[1],
        "point_layers": sum(file.has(f"{point}.fc{number}") for number in numbers),
        "point_channels": file.shape(f"{point}.fc1.weight")[0],
    }


def renames(config: PointRendInstanceConfig) -> Renames:
    """See `Importer`; what is written has the newer names. Theirs has no convolutions before the halving."""
    table = list(box_renames())
    for (coarse, point), layer in HEADS.items():
        for number in range(MOST_LAYERS):
            table += [
                (f"{coarse}.{layer}{number + 1}", f"stages.mask_head.layers.{number}"),
                (f"{point}.fc{number + 1}", f"stages.point_head.layers.{number}"),
            ]
        table += [
            (f"{coarse}.reduce_spatial_dim_conv", "stages.mask_head.down"),
            (f"{coarse}.prediction", "stages.mask_head.classifier"),
            (f"{point}.predictor", "stages.point_head.classifier"),
        ]
    return table


IMPORTER = Importer(
    source="detectron2", architecture="pointrend_instance", recognise=recognise, renames=renames, dropped=DROPPED
)
