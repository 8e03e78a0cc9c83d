"""Tversky: Dice with separate weights of false positives and false negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, mean_over_classes, quotient

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-7
"""Least value of 1 - index: a power below one has no finite slope at 0."""


class Tversky(Loss):
    """Dice with separate weights of false positives (alpha) and false negatives (beta).

    One minus the Tversky index (Salehi et al. 2017, https://arxiv.org/abs/1706.05721), to the power gamma:
    index = (TP + smooth) / (TP + alpha FP + beta FN + smooth), over the pixels and classes of `Dice`. The exponent is
    that of the focal Tversky loss (Abraham and Khan 2018, https://arxiv.org/abs/1810.07842; their gamma is one over
    ours).
    """

    name: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0, le=1e3, description="weight of false positives")
    beta: float = Field(0.7, ge=0, le=1e3, description="weight of false negatives")
    gamma: float = Field(1.0, gt=0, le=100, description="focal exponent on (1 - index)")
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_overlap

        shared, predicted, labelled = upsampled_overlap(logits, labels, canvas=canvas, align_corners=align_corners)
        false = self.alpha * (predicted - shared) + self.beta * (labelled - shared)
        index = quotient(shared + self.smooth, shared + false + self.smooth)
        return mean_over_classes((1 - index).clamp(min=TINY) ** self.gamma, labelled > 0, class_weights)


LOSS = Tversky
