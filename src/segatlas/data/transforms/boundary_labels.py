"""Labels of boundaries in place of labels of areas: what a training learns where classes meet, and only there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segatlas.errors import UsageError
from segatlas.labels import IGNORE
from segatlas.structures import SemanticTarget, Target
from segatlas.structures.class_boundaries import class_boundaries

if TYPE_CHECKING:
    from segatlas.config.transforms import TransformsConfig


@dataclass(frozen=True, kw_only=True)
class BoundaryLabels:
    """Multi-class boundary labels: a pixel near another class keeps its own, see `structures.class_boundaries`.

    width: pixels on each side of a boundary. rest: what other labelled pixels become: 255, so that nothing is learned
    there, or a class "none" that no label has.
    """

    width: int = 2
    rest: int = IGNORE

    def apply(self, target: Target) -> Target:
        """Return the truth that is left. UsageError where it is no map of labels."""
        if not isinstance(target, SemanticTarget):
            raise UsageError(
                "transforms.boundary_labels: objects have no map of labels; take it out, or train masks of classes"
            )
        labels = class_boundaries(np.asarray(target.labels), width=self.width, rest=self.rest)
        return target._replace(labels=labels)


def boundary_labels_of(transforms: TransformsConfig) -> BoundaryLabels | None:
    """Return the change of labels that a recipe asks for: other pixels are then ignored."""
    chosen = transforms.boundary_labels
    return None if chosen is None else BoundaryLabels(width=chosen.width)
