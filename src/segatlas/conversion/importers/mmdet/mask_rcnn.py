"""MMDetection's Mask R-CNN on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import MMDET
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.stages import has_stages, stage_fields, stage_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.models.mask_rcnn import MaskRCNNConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_stages(file) or file.has("semantic_head") or file.has("roi_head.point_head"):
        return None
    return stage_fields(file)


def renames(config: MaskRCNNConfig) -> Renames:
    """See `Importer`."""
    return stage_renames(config.encoder.name)


IMPORTER = Importer(source="mmdet", architecture="mask_rcnn", recognise=recognise, renames=renames, objects=MMDET)
