"""A ResNet inside the backbone of a network with several branches (BiSeNet, ICNet)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.resnet import recognise
from segatlas.conversion.importers.mmseg.resnet import renames as resnet_renames
from segatlas.conversion.importers.renames import Renames


def inner_fields(file: ForeignWeights, prefix: str, output_stride: int) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder whose names begin with `prefix`, None where it is no ResNet."""
    start = f"{prefix}."
    inner = {
        f"backbone.{name.removeprefix(start)}": tensor
        for name, tensor in file.tensors.items()
        if name.startswith(start)
    }
    return recognise(ForeignWeights(tensors=inner), output_stride)


def inner_renames(encoder: str, theirs: str, ours: str) -> Renames:
    """Return the table of a ResNet whose names begin with `theirs` there and with `ours` here."""
    return [
        (before.replace("backbone", theirs, 1), after.replace("encoder", ours, 1))
        for before, after in resnet_renames(encoder)
    ]
