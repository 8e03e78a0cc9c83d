"""Segmenter of MMSegmentation: `SegmenterMaskTransformerHead`, or an `FCNHead` that is a classifier alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.vit import block_renames, vit_fields, vit_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.segmenter import HEAD_WIDTH, SegmenterConfig

_MASK_HEAD = {
    "layers",
    "dec_proj",
    "cls_emb",
    "patch_proj",
    "classes_proj",
    "decoder_norm",
    "mask_norm",
}
_LINEAR_HEAD = {"conv_seg"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts not in (_MASK_HEAD, _LINEAR_HEAD) or file.has("neck") or file.has("auxiliary_head"):
        return None
    encoder = vit_fields(file)
    if encoder is None:
        return None
    name, options = encoder
    depth = file.count("backbone.layers.{i}")
    stated = file.stated("model.backbone.out_indices")
    if stated is not None and (stated if isinstance(stated, int) else stated[-1]) not in (-1, depth - 1):
        raise WeightsError(f"model.backbone.out_indices = {stated}: a Segmenter takes the last of {depth} blocks")
    fields = {"in_channels": image_channels(file), "encoder": name, "encoder_options": options}
    if parts == _LINEAR_HEAD:
        return {**fields, "num_classes": file.shape("decode_head.conv_seg.weight")[0], "layers": 0}
    _, classes, width = file.shape("decode_head.cls_emb")
    heads = file.stated("model.decode_head.num_heads")
    return {
        **fields,
        "num_classes": classes,
        "layers": file.count("decode_head.layers.{i}"),
        "heads": None if heads in (None, max(width // HEAD_WIDTH, 1)) else heads,
    }


def renames(config: SegmenterConfig) -> Renames:
    """See `Importer`."""
    if not config.layers:
        return [*vit_renames(), ("decode_head.conv_seg", "classifier")]
    return [
        *vit_renames(),
        *block_renames("decode_head.layers.{i}", "decoder.blocks.{i}"),
        ("decode_head.dec_proj", "decoder.project"),
        ("decode_head.cls_emb", "decoder.class_tokens"),
        ("decode_head.patch_proj", "classifier.project_patches"),
        ("decode_head.classes_proj", "classifier.project_classes"),
        ("decode_head.decoder_norm", "decoder.norm"),
        ("decode_head.mask_norm", "classifier.norm"),
    ]


IMPORTER = Importer(source="mmseg", architecture="segmenter", recognise=recognise, renames=renames)
