"""UperNetForSemanticSegmentation as transformers 5 names its tensors, on Swin or ConvNeXt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import convnext, swin
from segatlas.conversion.importers.hf.backbones import BackboneNames
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.errors import WeightsError
from segatlas.models.upernet import UPerNetConfig

_PARTS = {"psp_modules", "bottleneck", "lateral_convs", "fpn_convs", "fpn_bottleneck", "classifier"}
_AUX_INDEX = 2

_CONVOLUTIONS = (
    ("decode_head.psp_modules.{i}.1", "ppm.pools.{i}"),
    ("decode_head.bottleneck", "ppm.fuse"),
    ("decode_head.lateral_convs.{i}", "lateral.{i}"),
    ("decode_head.fpn_convs.{i}", "output.{i}"),
    ("decode_head.fpn_bottleneck", "fuse"),
    ("auxiliary_head.convs.0", "aux_head.conv"),
)
"""Their name of a convolution with its norm -> ours."""

HEAD: Renames = (
    *(
        pair
        for theirs, ours in _CONVOLUTIONS
        for pair in ((f"{theirs}.conv", f"{ours}.conv"), (f"{theirs}.batch_norm", f"{ours}.bn"))
    ),
    ("decode_head.classifier", "classifier"),
    ("auxiliary_head.classifier", "aux_head.classifier"),
)


def head_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of both heads, None where the file has others.

    Raises:
        WeightsError: settings state a form that ours does not have.
    """
    if {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")} != _PARTS:
        return None
    has_aux = file.has("auxiliary_head.classifier")
    for key, ours in (("auxiliary_in_index", _AUX_INDEX), ("auxiliary_concat_input", False)):
        stated = file.stated(key)
        if has_aux and stated not in (None, ours):
            raise WeightsError(f"{key} = {stated}: only {ours} is supported")
    return {
        "num_classes": file.shape("decode_head.classifier.weight")[0],
        "levels": file.count("decode_head.lateral_convs.{i}") + 1,
        "channels": file.shape("decode_head.fpn_bottleneck.conv.weight")[0],
        "pool_scales": tuple(file.stated("pool_scales") or UPerNetConfig.pool_scales),
        "aux": has_aux,
        "aux_channels": file.shape("auxiliary_head.convs.0.conv.weight")[0] if has_aux else None,
    }


def importer(backbones: Sequence[BackboneNames], dropped: tuple[str, ...] = ()) -> Importer:
    """Return the importer for these backbones; `dropped` as of `Importer`."""

    def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
        head = head_fields(file)
        if head is None:
            return None
        found = (backbone.recognise(file) for backbone in backbones)
        encoder = next((fields for fields in found if fields is not None), None)
        return None if encoder is None else {**head, **encoder}

    def backbone_of(config: UPerNetConfig) -> BackboneNames:
        name = config.encoder.name
        found = next((backbone for backbone in backbones if name in backbone.encoders), None)
        if found is None:
            raise WeightsError(f"Hugging Face has no UPerNet on '{name}'")
        return found

    def renames(config: UPerNetConfig) -> Renames:
        return [*backbone_of(config).renames(config.encoder), *HEAD]

    def stacks(config: UPerNetConfig) -> Sequence[Stack]:
        return backbone_of(config).stacks(config.encoder)

    def constants(config: UPerNetConfig) -> Mapping[str, Tensor]:
        return backbone_of(config).constants(config.encoder)

    return Importer(
        source="hf",
        architecture="upernet",
        recognise=recognise,
        renames=renames,
        stacks=stacks,
        dropped=dropped,
        constants=constants,
    )


IMPORTER = importer((swin.BACKBONE, convnext.BACKBONE))
