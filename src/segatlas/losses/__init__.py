"""Losses: one class for each term of `config.losses`, in one file a family."""

from __future__ import annotations

from torch import Tensor

from segatlas.config.losses import AnyLossConfig, LossConfig
from segatlas.losses.base import Loss
from segatlas.losses.boundary import Boundary
from segatlas.losses.class_presence import ClassPresence
from segatlas.losses.compound import CrossEntropyDice
from segatlas.losses.cross_entropy import CrossEntropy
from segatlas.losses.detail import Detail
from segatlas.losses.focal import Focal
from segatlas.losses.lovasz import Lovasz
from segatlas.losses.ohem import Ohem
from segatlas.losses.overlap import Dice, Tversky
from segatlas.losses.points import PointCrossEntropy

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "ohem": Ohem,
    "dice": Dice,
    "cross_entropy_dice": CrossEntropyDice,
    "focal": Focal,
    "tversky": Tversky,
    "lovasz": Lovasz,
    "boundary": Boundary,
    "detail": Detail,
    "class_presence": ClassPresence,
    "point_cross_entropy": PointCrossEntropy,
}
"""The class of each term name."""


def build_loss(term: AnyLossConfig, class_weights: Tensor | None = None) -> Loss:
    """Return the loss of a recipe's term.

    Args:
        term: its own fields go to the class; `weight`, `on` and `class_weights` are for whoever adds terms up.
        class_weights: (K,) or None; what `term.class_weights` stands for.
    """
    own = [field for field in type(term).model_fields if field not in LossConfig.model_fields]
    return LOSSES[term.name](class_weights=class_weights, **{field: getattr(term, field) for field in own})


__all__ = [
    "LOSSES",
    "Boundary",
    "ClassPresence",
    "CrossEntropy",
    "CrossEntropyDice",
    "Detail",
    "Dice",
    "Focal",
    "Loss",
    "Lovasz",
    "Ohem",
    "PointCrossEntropy",
    "Tversky",
    "build_loss",
]
