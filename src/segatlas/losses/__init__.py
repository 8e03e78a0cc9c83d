"""Loss modules: logits at the network's stride against the full-size label.

Every module is called as `loss(logits (N, K, h, w), labels (N, H, W), canvas=(H', W'), align_corners=False) -> scalar`.
Labels are 0..K-1, or 255 where a pixel has none: it adds nothing and gets no gradient. A batch without any labelled
pixel gives 0 with a zero gradient. One class for each term of `config.losses`, in the table below.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from segatlas.config.losses import (
    BoundaryTerm,
    CrossEntropyDiceTerm,
    CrossEntropyTerm,
    DiceTerm,
    FocalTerm,
    LossTerm,
    LovaszTerm,
    OhemTerm,
    Term,
    TverskyTerm,
)
from segatlas.errors import UsageError
from segatlas.losses.boundary import Boundary
from segatlas.losses.cross_entropy import CrossEntropy, Ohem
from segatlas.losses.focal import Focal
from segatlas.losses.lovasz import Lovasz
from segatlas.losses.region import CrossEntropyDice, Dice, Tversky

LOSSES: dict[type[Term], Callable[..., nn.Module]] = {
    CrossEntropyTerm: CrossEntropy,
    OhemTerm: Ohem,
    DiceTerm: Dice,
    CrossEntropyDiceTerm: CrossEntropyDice,
    FocalTerm: Focal,
    TverskyTerm: Tversky,
    LovaszTerm: Lovasz,
    BoundaryTerm: Boundary,
}
"""Recipe term -> module. The term's own fields are the module's keywords."""

__all__ = [
    "LOSSES",
    "Boundary",
    "CrossEntropy",
    "CrossEntropyDice",
    "Dice",
    "Focal",
    "Lovasz",
    "Ohem",
    "Tversky",
    "build_loss",
]


def build_loss(term: LossTerm, class_weights: Tensor | None = None) -> nn.Module:
    """Build the module of a recipe's loss line; `weight` and `on` of the line belong to the criterion.

    Args:
        term: one line of `losses:`.
        class_weights: (K,) the weights that "auto" stands for (from the training masks).

    Raises:
        UsageError: the line says `class_weights: auto` and none were given.
    """
    fields = term.model_dump(exclude={"name", "on", "weight", "class_weights"})
    weights: Tensor | None = None
    if term.class_weights == "auto":
        if class_weights is None:
            raise UsageError(f"loss {term.name}: class_weights is 'auto', but no weights were taken from the data")
        weights = class_weights
    elif term.class_weights is not None:
        weights = torch.tensor(term.class_weights)
    return LOSSES[type(term)](class_weights=weights, **fields)
