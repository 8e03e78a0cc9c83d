"""Non-local network of MMSegmentation: `NLHead`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.nonlocal_net import NonLocalNetConfig

_HEAD = {"conv_seg", "convs", "conv_cat", "nl_block"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD:
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    inner, channels, *_ = file.shape("decode_head.nl_block.g.conv.weight")
    return {
        **encoder,
        **head_fields(file),
        "channels": channels,
        "reduction": channels // inner,
        **_comparison(file),
    }


def _comparison(file: ForeignWeights) -> Mapping[str, Any]:
    """Return how pixels are compared: two of the four ways show in the weights."""
    if not file.has("decode_head.nl_block.theta"):
        return {"mode": "gaussian"}
    if file.has("decode_head.nl_block.concat_project"):
        return {"mode": "concatenation"}
    mode = file.setting("model.decode_head.mode", "embedded_gaussian")
    return {"mode": mode, "use_scale": file.setting("model.decode_head.use_scale", True)}


def renames(config: NonLocalNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.convs.0", "before"),
        ("decode_head.convs.1", "after"),
        ("decode_head.conv_cat", "fuse"),
        ("decode_head.nl_block.theta.conv", "block.theta"),
        ("decode_head.nl_block.phi.conv", "block.phi"),
        ("decode_head.nl_block.g.conv", "block.g"),
        ("decode_head.nl_block.concat_project.conv", "block.mean.project"),
        ("decode_head.nl_block.conv_out", "block"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="nonlocal_net",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
