"""FastFCN of MMSegmentation: `JPU` as neck under `PSPHead`, `ASPPHead` or `EncHead`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.aspp import ASPP, ASPP_PARTS, aspp_changes, aspp_fields
from segatlas.conversion.importers.mmseg.backbones import encoder_fields, encoder_renames
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.fastfcn import PUBLISHED_DILATIONS, FastFCNConfig

_HEADS = {
    frozenset({"conv_seg", "psp_modules", "bottleneck"}): "psp",
    frozenset(ASPP_PARTS): "aspp",
    frozenset({"conv_seg", "bottleneck", "enc_module", "se_layer"}): "enc",
}
_CODEWORDS = "decode_head.enc_module.encoding.0.codewords"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    head = _HEADS.get(frozenset(parts))
    if head is None or not file.has("neck.conv_layers", "neck.dilation_layers"):
        return None
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    if file.stated("model.backbone") is None:
        published = {"dilations": PUBLISHED_DILATIONS}
        encoder = {**encoder, "encoder_options": {**encoder["encoder_options"], **published}}
        file.notes.append(f"encoder_options = {published} (published default; the weights do not tell)")
    further: dict[str, Any] = {"channels": file.shape("decode_head.bottleneck.conv.weight")[0]}
    if head == "psp":
        further |= {"pool_scales": tuple(file.stated("model.decode_head.pool_scales") or (1, 2, 3, 6))}
    elif head == "aspp":
        further |= aspp_fields(file)
    else:
        further |= {"codes": file.shape(_CODEWORDS)[0]}
    return {
        **encoder,
        **head_fields(file),
        **further,
        "head": head,
        "jpu_channels": file.shape("neck.conv_layers.0.0.conv.weight")[0],
    }


def renames(config: FastFCNConfig) -> Renames:
    """See `Importer`."""
    heads = {
        "psp": [("decode_head.psp_modules.{i}.1", "head.pools.{i}"), ("decode_head.bottleneck", "head.fuse")],
        "aspp": [(theirs, ours.replace("aspp", "head", 1)) for theirs, ours in ASPP],
        "enc": [
            ("decode_head.bottleneck", "head.fuse"),
            ("decode_head.enc_module.encoding_project", "head.project"),
            ("decode_head.enc_module.encoding.1", "head.norm"),
            ("decode_head.enc_module.fc.0", "head.gate"),
            ("decode_head.enc_module.encoding.0", "head"),  # codewords, scale
            ("decode_head.se_layer", "presence"),
        ],
    }
    return [
        *encoder_renames(config.encoder.name),
        ("neck.conv_layers.{i}.0", "jpu.convs.{i}"),
        ("neck.dilation_layers.{i}.0.depthwise_conv.conv", "jpu.branches.{i}.depthwise"),
        ("neck.dilation_layers.{i}.0.depthwise_conv.bn", "jpu.branches.{i}.depthwise_bn"),
        ("neck.dilation_layers.{i}.0.pointwise_conv", "jpu.branches.{i}.pointwise"),
        *heads[config.head],
        *CLASSIFIER,
        *FCN_AUX,
    ]


def changes(config: FastFCNConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    if config.head != "aspp":
        return {}
    return {name.replace("aspp", "head", 1): change for name, change in aspp_changes(config.channels).items()}


IMPORTER = Importer(source="mmseg", architecture="fastfcn", recognise=recognise, renames=renames, changes=changes)
