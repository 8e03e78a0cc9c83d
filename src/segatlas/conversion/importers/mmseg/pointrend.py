"""PointRend of MMSegmentation: a feature pyramid, an `FPNHead` for the coarse logits, a `PointHead`."""

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
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.pyramid import is_pyramid, pyramid_fields, pyramid_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.models.pointrend import PointRendConfig

_TRAINING = {"num_points": "train_points", "oversample_ratio": "oversample", "importance_sample_ratio": "importance"}
_PREDICTION = {"subdivision_steps": "subdivisions", "subdivision_num_points": "subdivision_points"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not is_pyramid(file, "decode_head.0") or not file.has("decode_head.1.fcs.0.conv.weight"):
        return None
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    stated = {ours: file.stated(f"model.train_cfg.{theirs}") for theirs, ours in _TRAINING.items()}
    stated |= {ours: file.stated(f"model.test_cfg.{theirs}") for theirs, ours in _PREDICTION.items()}
    return {
        **encoder,
        **pyramid_fields(file, "decode_head.0"),
        **{name: value for name, value in stated.items() if value is not None},
        "num_classes": file.shape("decode_head.0.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "point_channels": file.shape("decode_head.1.fcs.0.conv.weight")[0],
        "point_layers": file.count("decode_head.1.fcs.{i}"),
        "align_corners": file.setting("model.decode_head.1.align_corners", False),
    }


def renames(config: PointRendConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        *pyramid_renames("decode_head.0"),
        ("decode_head.0.conv_seg", "classifier"),
        ("decode_head.1.fcs.{i}.conv", "point_head.layers.{i}"),
        ("decode_head.1.fc_seg", "point_head.classifier"),
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="pointrend",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
