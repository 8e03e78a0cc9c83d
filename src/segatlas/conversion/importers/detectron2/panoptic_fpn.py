"""Detectron2's Panoptic FPN on a ResNet with a pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import DETECTRON2
from segatlas.conversion.importers.detectron2.stages import DROPPED, has_stages, stage_fields, stage_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stages import with_stuff
from segatlas.models.panoptic_fpn import PanopticFPNConfig

HEAD = "sem_seg_head"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_stages(file) or not file.has(f"{HEAD}.p2.0.norm", f"{HEAD}.predictor"):
        return None
    return with_stuff(stage_fields(file), file, f"{HEAD}.predictor", other="first")


def renames(config: PanopticFPNConfig) -> Renames:
    """See `Importer`. In theirs, every second entry of a level is an upsampling, which has no parameters."""
    levels = []
    for level in range(4):
        for k in range(max(level, 1)):
            theirs, ours = f"{HEAD}.p{level + 2}.{2 * k}", f"head.levels.{level}.{k}"
            levels += [(f"{theirs}.norm", f"{ours}.norm"), (theirs, f"{ours}.conv")]
    return [*stage_renames(), *levels, (f"{HEAD}.predictor", "classifier")]


IMPORTER = Importer(
    source="detectron2", architecture="panoptic_fpn", recognise=recognise, renames=renames, dropped=DROPPED,
    objects=DETECTRON2,
)  # fmt: skip
