"""CGNet of MMSegmentation: all but the classifier as backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.cgnet import CGNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.norm_prelu_0", "backbone.level1.0.f_glo", "backbone.level2.0.f_glo"):
        return None
    squeezed = [file.shape(f"backbone.level{level}.0.f_glo.fc.0.weight") for level in (1, 2)]
    stem = file.shape("backbone.stem.0.conv.weight")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": stem[1],
        "widths": (stem[0], *(shape[1] for shape in squeezed)),
        "blocks": tuple(file.count(f"backbone.level{level}.{{i}}") for level in (1, 2)),
        "reductions": tuple(shape[1] // shape[0] for shape in squeezed),
        "dilations": tuple(file.setting("model.backbone.dilations", (2, 4))),
        "align_corners": file.setting("model.decode_head.align_corners", False),
    }


def renames(config: CGNetConfig) -> Renames:
    """See `Importer`."""
    of_block = (
        ("conv1x1.conv", "first.conv"),
        ("conv1x1.bn", "first.bn"),
        ("conv1x1.activate", "first.activation"),
        ("f_loc", "place"),
        ("f_sur", "surroundings"),
        ("bn", "norm.0"),
        ("activate", "norm.1"),
        ("bottleneck", "reduce"),
        ("f_glo.fc.0", "whole.squeeze"),
        ("f_glo.fc.2", "whole.excite"),
    )
    return [
        ("backbone.stem.{i}.activate", "encoder.stem.{i}.activation"),
        ("backbone.stem", "encoder.stem"),
        *((f"backbone.norm_prelu_{index}", f"encoder.norms.{index}") for index in range(3)),
        *(
            (f"backbone.level{level + 1}.{{i}}.{theirs}", f"encoder.guided.{level}.blocks.{{i}}.{ours}")
            for level in range(2)
            for theirs, ours in of_block
        ),
        *CLASSIFIER,
    ]


IMPORTER = Importer(source="mmseg", architecture="cgnet", recognise=recognise, renames=renames)
