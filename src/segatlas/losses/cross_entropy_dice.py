"""Cross-entropy plus Dice."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from segatlas.losses.cross_entropy import CrossEntropy
from segatlas.losses.dice import Dice
from segatlas.losses.loss import Canvas, Loss
from segatlas.renamed import old_attribute

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropyDice(Loss):
    """Cross-entropy plus Dice.

    (1 - dice_fraction) * CrossEntropy + dice_fraction * Dice, class weights in both.
    """

    name: Literal["cross_entropy_dice"] = "cross_entropy_dice"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread over all classes")
    dice_fraction: float = Field(0.5, ge=0, le=1, description="fraction of Dice in the sum")
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")

    dice_share: ClassVar[property] = old_attribute("dice_share", "dice_fraction")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        given = (logits, labels, canvas, align_corners, class_weights)
        cross_entropy = CrossEntropy(label_smoothing=self.label_smoothing).value(*given)
        dice = Dice(smooth=self.smooth).value(*given)
        return (1 - self.dice_fraction) * cross_entropy + self.dice_fraction * dice


LOSS = CrossEntropyDice
