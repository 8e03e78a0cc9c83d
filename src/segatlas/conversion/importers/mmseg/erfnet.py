"""ERFNet of MMSegmentation: encoder and decoder as one backbone, each a list of blocks, and an FCN head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.erfnet import ERFNetConfig

_DILATIONS = (2, 4, 8, 16)
"""Those of the deepest blocks, again and again; settings call them `enc_non_bottleneck_dilations`."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(
        "backbone.encoder.0.conv", "backbone.encoder.0.bn", "backbone.decoder.0.conv", "decode_head.convs.0"
    ):
        return None
    parts = range(file.count("backbone.encoder.{i}"))
    halvings = [index for index in parts if file.has(f"backbone.encoder.{index}.conv")]
    if len(halvings) != 3:
        return None
    deepest = len(parts) - halvings[2] - 1
    dilations = tuple(file.setting("model.backbone.enc_non_bottleneck_dilations", _DILATIONS))
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": file.shape("backbone.encoder.0.conv.weight")[1],
        "widths": tuple(file.shape(f"backbone.encoder.{index}.bn.weight")[0] for index in halvings),
        "blocks": halvings[2] - halvings[1] - 1,
        "dilations": (dilations * deepest)[:deepest],
        "decoder_blocks": file.count("backbone.decoder.{i}") // 2 - 1,
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "align_corners": file.setting("model.decode_head.align_corners", False),
    }


def renames(config: ERFNetConfig) -> Renames:
    """See `Importer`."""
    table: list[tuple[str, str]] = []
    index = 0
    for level, blocks in enumerate((0, config.blocks, len(config.dilations))):
        table.append((f"backbone.encoder.{index}", f"encoder.levels.{level}.0"))
        table += _blocks("backbone.encoder", index + 1, f"encoder.levels.{level}", 1, blocks)
        index += 1 + blocks
    for place in (0, config.decoder_blocks + 1):
        table.append((f"backbone.decoder.{place}", f"decoder.{place}"))
        table += _blocks("backbone.decoder", place + 1, "decoder", place + 1, config.decoder_blocks)
    return [*table, ("decode_head.convs.0", "conv"), *CLASSIFIER]


def _blocks(theirs: str, first_of_theirs: int, ours: str, first_of_ours: int, count: int) -> Renames:
    """Return the table of `count` blocks in a row: layers without weights stand between those of a pair."""
    layers = ((0, 0, 0), (2, 0, 2), (3, 0, 3), (5, 1, 0), (7, 1, 2), (8, 1, 3))
    return [
        (f"{theirs}.{first_of_theirs + i}.convs_layers.{place}", f"{ours}.{first_of_ours + i}.pairs.{pair}.{layer}")
        for i in range(count)
        for place, pair, layer in layers
    ]


IMPORTER = Importer(source="mmseg", architecture="erfnet", recognise=recognise, renames=renames)
