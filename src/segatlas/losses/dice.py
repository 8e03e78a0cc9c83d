"""Dice: overlap of the predicted region of a class with its true one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, mean_over_classes, quotient

if TYPE_CHECKING:
    from torch import Tensor


class Dice(Loss):
    """One minus the Dice coefficient, mean over classes.

    V-Net (Milletari et al. 2016, https://arxiv.org/abs/1606.04797), without squares:
    Dice = (2 I + smooth) / (P + L + smooth) with I the softmax probability of a class on its own pixels, P on all, L
    their number, over all labelled pixels of the batch; `smooth` is in pixels. The (weighted) mean is over the classes
    that occur in the batch's labels: an absent class has no region to overlap. What is wrongly given to it is missing
    in a class that is there, and counts there.
    """

    name: Literal["dice"] = "dice"
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_overlap

        shared, predicted, labelled = upsampled_overlap(logits, labels, canvas=canvas, align_corners=align_corners)
        dice = quotient(2 * shared + self.smooth, predicted + labelled + self.smooth)
        return mean_over_classes(1 - dice, labelled > 0, class_weights)


LOSS = Dice
