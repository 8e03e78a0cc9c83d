"""What lies behind the decoders of segmentation-models-pytorch: the classifier, and the head for the whole image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.family import MOST_LEVELS
from segatlas.errors import WeightsError

CLASSIFIER = "segmentation_head.0"
_PRESENCE = "classification_head.3"

_REDUCTION = 16
"""Of its scSE, fixed in the library."""

HEAD: Renames = ((CLASSIFIER, "classifier"), (_PRESENCE, "presence_head.linear"))


def head_fields(file: ForeignWeights) -> dict[str, Any]:
    """Return the fields of the config that the heads tell: classes, and those of the presence head (`aux_params`)."""
    fields: dict[str, Any] = {"num_classes": file.shape(f"{CLASSIFIER}.weight")[0]}
    if file.has(f"{_PRESENCE}.weight"):
        fields["presence_classes"] = file.shape(f"{_PRESENCE}.weight")[0]
        fields["presence_pooling"] = file.setting("aux_params.pooling", "avg")
        fields["presence_dropout"] = training_setting(file, "aux_params.dropout", 0.2)
    return fields


def training_setting(file: ForeignWeights, path: str, default: float) -> float:
    """Return a setting that says nothing about predictions, the library's default where none is stated."""
    stated = file.stated(path)
    return default if stated is None else float(stated)


def require_default(file: ForeignWeights, **defaults: Any) -> None:
    """Raise WeightsError where settings beside the weights say that the library built another network than ours."""
    for name, expected in defaults.items():
        stated = file.stated(name)
        if stated is not None and stated != expected:
            raise WeightsError(f"{name} = {stated!r}: only {expected!r} is supported")


def require_batch_norm(file: ForeignWeights) -> None:
    """Raise WeightsError where settings say that the decoder has another norm than batch norm."""
    stated = file.stated("decoder_use_norm")
    kind = stated.get("type") if isinstance(stated, Mapping) else stated
    if kind not in (None, True, "batchnorm"):
        raise WeightsError(f"decoder_use_norm = {stated!r}: only batch norm is supported")


def decoder_parts(file: ForeignWeights, depth: int) -> set[tuple[str, ...]]:
    """Return the beginnings of the names of the decoder's tensors, of so many parts after `decoder`."""
    return {tuple(name.split(".")[1 : 1 + depth]) for name in file.tensors if name.startswith("decoder.")}


def unused_scse(name: str, channels: int) -> dict[str, Tensor]:
    """Return zeros in place of the weights of a step's first scSE where the library has them and never uses them.

    Args:
        name: of the step.
        channels: of what it would weight.
    """
    hidden = channels // _REDUCTION
    shapes = {
        "cSE.1.weight": (hidden, channels, 1, 1),
        "cSE.1.bias": (hidden,),
        "cSE.3.weight": (channels, hidden, 1, 1),
        "cSE.3.bias": (channels,),
        "sSE.0.weight": (1, channels, 1, 1),
        "sSE.0.bias": (1,),
    }
    return {f"{name}.attention1.attention.{part}": torch.zeros(()).expand(shape) for part, shape in shapes.items()}


def step_renames(theirs: str, ours: str) -> Renames:
    """Return the lines of a step of two convolutions, with scSE or without."""
    return [
        *((f"{theirs}.{conv}.0", f"{ours}.{conv}.conv") for conv in ("conv1", "conv2")),
        *((f"{theirs}.{conv}.1", f"{ours}.{conv}.bn") for conv in ("conv1", "conv2")),
        *((f"{theirs}.{name}.attention.cSE", f"{ours}.{name}.by_channel") for name in ("attention1", "attention2")),
        *((f"{theirs}.{name}.attention.sSE", f"{ours}.{name}.by_pixel") for name in ("attention1", "attention2")),
    ]


def attention_field(file: ForeignWeights, step: str) -> dict[str, Any]:
    """Return the field `attention` where the step of that name has scSE."""
    return {"attention": "scse"} if file.has(f"{step}.attention2.attention.cSE") else {}


def levels_of(encoder: Mapping[str, Any]) -> int:
    """Return how often an encoder halves the image, given the fields that `encoder_fields` found."""
    return int(encoder["encoder"].get("levels", MOST_LEVELS))


def inner_upsampling(file: ForeignWeights, default: int, *, stride: int) -> int | None:
    """Return the field `inner_upsampling`: the library's factor where it does not lead to the image's size, else None.

    Args:
        file: the weights, whose settings may tell the factor.
        default: the library's.
        stride: of the logits.
    """
    factor = file.setting("upsampling", default)
    if not isinstance(factor, int) or factor < 1:
        raise WeightsError(f"upsampling = {factor!r}: expected a whole number from 1 on")
    return None if factor == stride else factor
