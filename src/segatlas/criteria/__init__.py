"""Criteria: what a training minimises, by the type of output. The table holds no torch.

A file offers `build(terms, automatic_weights) -> nn.Module`; the module takes (output, targets) and returns the total,
a scalar, and the value of each term by name. What a single term takes and computes is its loss's matter; a file of its
own is for outputs whose terms depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from segatlas.errors import UsageError
from segatlas.losses import Loss, losses_for
from segatlas.renamed import old_names

if TYPE_CHECKING:
    from torch import Tensor, nn

CRITERIA: dict[str, str] = {
    "SemanticLogits": "segatlas.criteria.weighted_sum",
    "CentersAndOffsets": "segatlas.criteria.weighted_sum",
    "DetectedMasks": "segatlas.criteria.weighted_sum",
    "QueryMasks": "segatlas.criteria.query_masks",
}
"""Name of an output type of `segatlas.structures` -> the file of its criterion."""


def build(output: str, terms: Sequence[Loss], automatic_weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return the criterion of networks that give this type of output.

    Args:
        output: the type's name, a key of CRITERIA.
        terms: the recipe's `losses`.
        automatic_weights: (K,) class weights by the word that terms ask for them with: `class_weights: auto`.

    Raises:
        UsageError: the terms do not suit.
    """
    wrong = next((term for term in terms if term.output != output), None)
    if wrong is not None:
        raise UsageError(f"losses: got {wrong.name}; this network trains with {', '.join(losses_for(output))}")
    criterion: nn.Module = import_module(CRITERIA[output]).build(terms, automatic_weights)
    return criterion


__all__ = ["CRITERIA", "build"]

__getattr__ = old_names("segatlas.criteria")
