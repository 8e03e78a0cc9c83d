"""MMDetection's Panoptic FPN on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import MMDET
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.stages import has_stages, stage_fields, stage_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stages import with_stuff
from segatlas.models.panoptic_fpn import PanopticFPNConfig

HEAD = "semantic_head"
PUBLISHED = {"score_threshold": 0.6, "class_agnostic": True}
"""What published configurations say, for a file without one."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_stages(file) or not file.has(f"{HEAD}.conv_upsample_layers.0.conv.0.gn", f"{HEAD}.conv_logits"):
        return None
    fields = with_stuff(stage_fields(file), file, f"{HEAD}.conv_logits", other="last")
    return fields if fields is None or file.settings else {**fields, **PUBLISHED}


def renames(config: PanopticFPNConfig) -> Renames:
    """See `Importer`."""
    level = f"{HEAD}.conv_upsample_layers.{{i}}.conv.{{k}}"
    return [
        *stage_renames(config.encoder.name),
        (f"{level}.conv", "head.levels.{i}.{k}.conv"),
        (f"{level}.gn", "head.levels.{i}.{k}.norm"),
        (f"{HEAD}.conv_logits", "classifier"),
    ]


IMPORTER = Importer(source="mmdet", architecture="panoptic_fpn", recognise=recognise, renames=renames, objects=MMDET)
