"""Cross-entropy for images in which only some classes were annotated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segatlas.losses.around import LossAround
from segatlas.losses.loss import Canvas

if TYPE_CHECKING:
    from torch import Tensor


class MarginalCrossEntropy(LossAround):
    """Cross-entropy in which classes that were not annotated in an image count as one.

    Shi et al. 2021, https://arxiv.org/abs/2007.03868. The mean over labelled pixels: one of an annotated class costs
    -log of its probability; one of any other class -log of the sum of the probabilities of all that were not
    annotated. Where all are annotated it is the cross-entropy. Which are, `data.name=weak` says with
    `classes_labelled.csv`, and `data.name=mixed` by the class lists of its sources.
    """

    takes: ClassVar = "a map of logits (N, K, h, w) with which classes were annotated"
    weighted: ClassVar = True
    heeds: ClassVar = "annotated"

    name: Literal["marginal_cross_entropy"] = "marginal_cross_entropy"

    def value(
        self, logits: Any, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops.marginal_loss import upsampled_marginal_cross_entropy

        return upsampled_marginal_cross_entropy(
            logits.part,
            labels,
            logits.around.annotated,
            canvas=canvas,
            align_corners=align_corners,
            weight=class_weights,
        )


LOSS = MarginalCrossEntropy
