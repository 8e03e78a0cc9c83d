"""Detectron2's Mask R-CNN on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.detectron2.stages import DROPPED, has_stages, stage_fields, stage_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.models.mask_rcnn import MaskRCNNConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_stages(file) or file.has("sem_seg_head") or file.has("roi_heads.mask_head.point_head"):
        return None
    return stage_fields(file)


def renames(config: MaskRCNNConfig) -> Renames:
    """See `Importer`."""
    return stage_renames()


IMPORTER = Importer(
    source="detectron2", architecture="mask_rcnn", recognise=recognise, renames=renames, dropped=DROPPED
)
