"""MMSegmentation's HRNet: our names but for the prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders import ENCODERS
from segatlas.encoders.hrnet import FULL, SMALL, Form

_ENDINGS = {FULL: "", SMALL: "_small"}


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. An HRNet has its own strides."""
    finest = "backbone.stage4.0.branches.0"
    if not file.has(f"{finest}.0.conv1.weight"):
        return None
    first, second, third = (file.count(f"backbone.stage{stage}.{{i}}") for stage in (2, 3, 4))
    ending = _ENDINGS.get(Form(file.count(f"{finest}.{{i}}"), (first, second, third)))
    name = f"hrnet_w{file.shape(f'{finest}.0.conv1.weight')[0]}{ending}"
    return {"encoder": name, "output_stride": None, "encoder_options": {}} if name in ENCODERS else None


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    return [("backbone", "encoder")]


BACKBONE = Backbone(module="segatlas.encoders.hrnet", recognise=recognise, renames=renames)
