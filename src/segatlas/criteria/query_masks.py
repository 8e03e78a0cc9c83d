"""The criterion of networks of queries: the weighted sum of its terms, which share the truths made of a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.criteria import weighted_sum
from segatlas.losses import Loss
from segatlas.ops.query_truth import QueryTruths
from segatlas.structures import Output, QueryMasks, Surroundings

LOGGER = logging.getLogger("segatlas")


class Criterion(weighted_sum.Criterion):
    """Sum of `term.weight * loss` over the terms; see there. Truths become objects once, whatever reads them.

    The log says when an image has more objects than there are queries, and again when one has still more.
    """

    most_told = 0

    def forward(
        self, output: Output, targets: Any, around: Surroundings | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total, and the value of each part of a term by name.

        Args:
            output: a `QueryMasks`, of a network in training mode.
            targets: labels (N, H, W), or a target an image; the top left part of the canvas.
            around: what terms read besides.

        Raises:
            UsageError: see `weighted_sum.Criterion`.
            CostError: the costs of matching an image are not finite.
        """
        if not isinstance(output, QueryMasks):
            return super().forward(output, targets, around)  # says what it takes
        truths = QueryTruths(targets, output.canvas, output.mask_logits.device)
        self._tell_too_many(truths, output.class_logits.shape[1])
        return super().forward(output, truths, around)

    def _tell_too_many(self, truths: QueryTruths, queries: int) -> None:
        ignored = any(getattr(term, "void", "ignore") == "ignore" for term in self.terms)
        most = max((len(truth) for truth in truths.of(ignored)), default=0)
        if most > max(queries, self.most_told):
            self.most_told = most
            LOGGER.warning(
                "an image has %d objects, and the network %d queries: %d of them are not learned; more queries, or "
                "smaller crops, learn more",
                most,
                queries,
                most - queries,
            )


def build(terms: Sequence[Loss], automatic_weights: Mapping[str, Tensor] | None = None) -> Criterion:
    """Return the criterion of a recipe's `losses`."""
    return Criterion(terms, automatic_weights)
