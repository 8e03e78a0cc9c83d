"""MMSegmentation's `MSCAN`: its names of tensors are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.mscan import MLP_RATIOS, SIZES, STRIDES, STRIPS, MSCANOptions
from segatlas.errors import WeightsError

_KERNELS = [5, *([1, length] for length in STRIPS)]
_STAGES = range(1, len(STRIDES) + 1)


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. The strides are its own."""
    gate = "attn.spatial_gating_unit.conv0.weight"
    if not file.has("backbone.patch_embed1.proj.0.weight", *(f"backbone.block{i}.0.{gate}" for i in _STAGES)):
        return None
    widths = tuple(file.shape(f"backbone.norm{stage}.weight")[0] for stage in _STAGES)
    depths = tuple(file.count(f"backbone.block{stage}.{{i}}.attn") for stage in _STAGES)
    name = next((name for name, size in SIZES.items() if (size.widths, size.depths) == (widths, depths)), None)
    if name is None:
        raise WeightsError(f"an MSCAN of widths {list(widths)} with {list(depths)} blocks is none of the published")
    for path, ours in (("mlp_ratios", list(MLP_RATIOS)), ("attention_kernel_sizes", _KERNELS), ("drop_rate", 0.0)):
        stated = file.stated(f"model.backbone.{path}")
        if stated is not None and _plain(stated) != ours:
            raise WeightsError(f"model.backbone.{path} = {stated}: only {ours} is supported")
    drop_path = file.stated("model.backbone.drop_path_rate")
    given = {"drop_path": drop_path} if drop_path not in (None, MSCANOptions().drop_path) else {}
    return {"encoder": name, "output_stride": None, "encoder_options": given}


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    return [("backbone", "encoder")]


BACKBONE = Backbone(module="segatlas.encoders.mscan", recognise=recognise, renames=renames)
