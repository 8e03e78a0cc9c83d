"""Networks with one logit a pixel, whose class is where the sigmoid is above a threshold: two classes here.

A label here is the class of the largest logit, which of one class is that class everywhere. So class 0 is put beside
it, whose logit is a constant: 0 for a threshold of 0.5, else the logit of the threshold. The softmax of (0, z) is the
sigmoid of z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.build.assembling import filled
from segatlas.build.network import build_empty
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.errors import WeightsError
from segatlas.models.architecture import Architecture
from segatlas.models.host import with_classes
from segatlas.palette import Color
from segatlas.tasks import TASKS

BACKGROUND, FOREGROUND = "background", "foreground"
_BLACK = (0, 0, 0)
_SIDE = 64
"""Pixels of the image on which both networks are compared."""
_TOLERANCE = 1e-4
"""Difference at most, as a fraction of the largest logit."""


def with_background(
    architecture: Architecture,
    config: Any,
    tensors: Mapping[str, Tensor],
    threshold: float,
    *,
    where: str,
    network: str,
) -> tuple[Any, nn.Module]:
    """Return the config of two classes and the network, in eval mode: logits of class 0 constant, of class 1 as before.

    Both networks are run on an image of noise: what comes out is right, or refused.

    Args:
        architecture: the record.
        config: its config, of one class.
        tensors: of the network of one class, under our names.
        threshold: of the sigmoid, above which the class is.
        where: the file, named in errors.
        network: what the network is, named in errors.

    Raises:
        WeightsError: tensors that do not fit the network, or a second class would change what the first one gets.
    """
    alone = filled(architecture, config, tensors, where=where, network=network)
    wide = with_classes(config, config.num_classes + 1)
    constant = math.log(threshold / (1 - threshold))
    shapes = {name: tensor.shape for name, tensor in build_empty(architecture, wide).state_dict().items()}
    refused = WeightsError(
        f"{where}: one logit a pixel, to be told by a threshold; a label here is the class of the largest logit, and a "
        f"second class cannot be put beside the one of this {architecture.name}, whose classes look at each other. "
        "Train it with two"
    )
    value = constant
    for _ in range(2):
        widened = {name: _widened(name, tensor, shapes.get(name), value) for name, tensor in tensors.items()}
        if any(tensor.shape != shapes.get(name) for name, tensor in widened.items()):
            raise refused
        both = filled(architecture, wide, widened, where=where, network=network)
        with told_as_weights_error(f"{where}: {network} cannot be run"):
            found, alike = _compared(alone, both, config.in_channels, constant)
        if alike:
            return wide, both
        value *= constant / found if found else 0.0  # LR-ASPP adds the biases of two classifiers
    raise refused


def require_second_class(card: Card, *, where: str) -> None:
    """Raise WeightsError for queries of one class that make label maps: it would be everywhere, there as here."""
    if len(card.classes) == 1 and TASKS[card.task].target == "SemanticTarget":
        raise WeightsError(
            f"{where}: a {card.architecture} of one class for label maps, in which that class would be everywhere, as "
            "in its own library; train it with two"
        )


def names_of_two(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of two classes, of which a file names both, the second one alone, or none."""
    if len(classes) == 2:
        return tuple(classes)
    name = classes[0] if len(classes) == 1 and classes[0].lower() != BACKGROUND else FOREGROUND
    return BACKGROUND, name


def colors_of_two(palette: Sequence[Color]) -> tuple[Color, ...]:
    """Return their colours, () where the file has none."""
    return (_BLACK, *palette) if len(palette) == 1 else tuple(palette)


def note_of(classes: Sequence[str], threshold: float) -> str:
    """Say what was made of one logit."""
    constant = math.log(threshold / (1 - threshold))
    moved = "" if constant == 0 else f", at which {classes[0]!r} and {classes[1]!r} are equally likely here"
    return (
        f"one logit a pixel in the file, two classes here: {classes[0]!r} has the logit {constant:.3g} everywhere, "
        f"{classes[1]!r} that of the file, which wins where its sigmoid is above {threshold:g}{moved}"
    )


def _widened(name: str, tensor: Tensor, shape: Sequence[int] | None, constant: float) -> Tensor:
    """Return a tensor with the row of class 0 before the others, where the network of two classes has one more."""
    if shape is None or tensor.ndim == 0 or tuple(tensor.shape) == tuple(shape):
        return tensor
    if len(shape) != tensor.ndim or shape[0] != tensor.shape[0] + 1:
        return tensor
    value = constant if tensor.ndim == 1 and name.endswith("bias") else 0.0
    return torch.cat([torch.full_like(tensor[:1], value), tensor])


@torch.inference_mode()
def _compared(alone: nn.Module, both: nn.Module, channels: int, constant: float) -> tuple[float, bool]:
    """Return the mean logit of class 0, and whether that is the constant everywhere and the other as it is alone."""
    image = torch.randn(1, channels, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    found, expected = both(image).logits, alone(image).logits
    bound = _TOLERANCE * max(1.0, float(expected.abs().max()))
    right = torch.cat([torch.full_like(expected[:, :1], constant), expected], dim=1)
    alike = found.shape == right.shape and bool(((found - right).abs() <= bound).all())
    return float(found[:, 0].mean()), alike
