"""MMSegmentation's ResNeSt: a ResNetV1d whose blocks hold split attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.mmseg.resnet import renames, stated_layout
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.resnest import DEPTHS, STEM_WIDTHS


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`."""
    if not file.has("backbone.stem", "backbone.layer1.0.conv2.fc1"):
        return None
    blocks = tuple(file.count(f"backbone.layer{layer}.{{i}}") for layer in (1, 2, 3, 4))
    name = next((name for name, depths in DEPTHS.items() if depths == blocks), None)
    if name is None:
        return None
    stem = file.shape("backbone.stem.6.weight")[0]
    options: dict[str, Any] = {} if stem == STEM_WIDTHS.get(name, 128) else {"stem_width": stem}
    output_stride, further = stated_layout(file, output_stride)
    return {"encoder": name, "output_stride": output_stride, "encoder_options": options | further}


def renames_of(encoder: str) -> Renames:
    """See `Backbone`."""
    return renames(f"{encoder}d")  # the names of a ResNetV1d


BACKBONE = Backbone(module="segatlas.encoders.resnest", recognise=recognise, renames=renames_of)
