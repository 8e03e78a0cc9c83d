"""SETR of MMSegmentation, naive and PUP: `SETRUPHead`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.vit import vit_fields, vit_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.setr import AUX_SCALE, SETRConfig

_HEAD = {"norm", "up_convs", "conv_seg"}
_PUBLISHED = {24: (9, 14, 19, 23)}
_SCALES = {1: 4, 2: 4}
"""Convolutions -> what is upsampled by after each of them, in published heads; 2 otherwise."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD or file.has("neck"):
        return None
    encoder = vit_fields(file)
    if encoder is None:
        return None
    name, options = encoder
    heads = file.count("auxiliary_head.{i}")
    blocks = chosen_blocks(file, _PUBLISHED, count=heads + 1)
    _require_order(file, len(blocks), heads)
    convs = file.count("decode_head.up_convs.{i}")
    channels, _, kernel_size, _ = file.shape("decode_head.up_convs.0.0.conv.weight")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "encoder": name,
        "encoder_options": options,
        "blocks": blocks,
        "channels": channels,
        "convs": convs,
        "kernel_size": kernel_size,
        "scale": file.setting("model.decode_head.up_scale", _SCALES.get(convs, 2)),
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": heads > 0,
        "aux_convs": file.count("auxiliary_head.0.up_convs.{i}") or SETRConfig.aux_convs,
    }


def chosen_blocks(file: ForeignWeights, published: Mapping[int, tuple[int, ...]], *, count: int) -> tuple[int, ...]:
    """Return the blocks whose tokens are taken: as stated, else as published for the depth, else evenly spread.

    Args:
        file: the file.
        published: depth -> blocks.
        count: how many there are, at least.
    """
    depth = file.count("backbone.layers.{i}")
    usual = published.get(depth, ())
    if len(usual) != count:
        usual = tuple(depth * (index + 1) // count - 1 for index in range(count))
    stated = file.setting("model.backbone.out_indices", usual)
    blocks = (stated,) if isinstance(stated, int) else tuple(stated)
    return tuple(block % depth for block in blocks)


def _require_order(file: ForeignWeights, levels: int, heads: int) -> None:
    """Raise WeightsError where settings state another order of heads over the blocks than published."""
    stated = file.stated("model.decode_head.in_index")
    if stated is not None and stated % levels != levels - 1:
        raise WeightsError(f"model.decode_head.in_index = {stated}: only the last of {levels} is supported")
    for index in range(heads):
        for key, wanted in (("in_index", index), ("up_scale", AUX_SCALE)):
            stated = file.stated(f"model.auxiliary_head.{index}.{key}")
            if stated not in (None, wanted):
                raise WeightsError(f"model.auxiliary_head.{index}.{key} = {stated}: only {wanted} is supported")
    if heads not in (0, levels - 1):
        raise WeightsError(f"{heads} auxiliary heads over {levels} blocks: expected one for each but the last, or none")


def renames(config: SETRConfig) -> Renames:
    """See `Importer`."""
    if config.decoder != "up":
        return []
    heads: Sequence[int] = config.blocks[:-1] if config.aux else ()
    return [
        *vit_renames(),
        ("decode_head.norm", "decoder.norm"),
        ("decode_head.up_convs.{i}.0", "decoder.convs.{i}"),
        ("decode_head.conv_seg", "classifier"),
        *(
            (f"auxiliary_head.{index}.{theirs}", f"aux_heads.z{block + 1}.{ours}")
            for index, block in enumerate(heads)
            for theirs, ours in (
                ("norm", "decoder.norm"),
                ("up_convs.{i}.0", "decoder.convs.{i}"),
                ("conv_seg", "classifier"),
            )
        ),
    ]


IMPORTER = Importer(source="mmseg", architecture="setr", recognise=recognise, renames=renames)
