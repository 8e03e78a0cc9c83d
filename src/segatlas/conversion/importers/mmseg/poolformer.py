"""MMPretrain's `PoolFormer`, which MMSegmentation's configs take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.poolformer import SIZES, STRIDES, PoolFormerOptions
from segatlas.errors import WeightsError

_STAGES = range(len(STRIDES))
"""Entry 2 i of their `network` is stage i, the entry before it leads there from stage i - 1."""

_ONLY = {"pool_size": 3, "in_patch_size": 7, "in_stride": 4, "in_pad": 2, "down_patch_size": 3, "drop_rate": 0.0}
"""Settings that ours has no others of."""


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. The strides are its own."""
    if not file.has("backbone.patch_embed.proj.weight", "backbone.network.0.0.mlp.fc1.weight"):
        return None
    first = (f"backbone.network.{2 * stage}.0.norm1.weight" for stage in _STAGES)
    widths = tuple(file.shape(name)[0] for name in first if name in file.tensors)
    depths = tuple(file.count(f"backbone.network.{2 * stage}.{{i}}.mlp") for stage in _STAGES)
    name = next((name for name, size in SIZES.items() if (size.widths, size.depths) == (widths, depths)), None)
    if name is None:
        raise WeightsError(f"a PoolFormer of widths {list(widths)} with {list(depths)} blocks is none of the published")
    for key, ours in _ONLY.items():
        if (stated := file.stated(f"model.backbone.{key}")) not in (None, ours):
            raise WeightsError(f"model.backbone.{key} = {stated}: only {ours} is supported")
    drop_path = file.stated("model.backbone.drop_path_rate")
    given = {"drop_path": drop_path} if drop_path not in (None, PoolFormerOptions().drop_path) else {}
    return {"encoder": name, "output_stride": None, "encoder_options": given}


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    return [
        ("backbone.patch_embed.proj", "encoder.stem"),
        *((f"backbone.network.{2 * i}", f"encoder.layers.{i}.blocks") for i in _STAGES),
        *((f"backbone.network.{2 * i - 1}.proj", f"encoder.layers.{i}.downsample") for i in _STAGES[1:]),
        *((f"backbone.norm{2 * i}", f"encoder.norm{i}") for i in _STAGES),
    ]


BACKBONE = Backbone(module="segatlas.encoders.poolformer", recognise=recognise, renames=renames)
