"""Cross-entropy plus Dice."""

from __future__ import annotations

from torch import Tensor

from segatlas.losses.base import Loss
from segatlas.losses.cross_entropy import CrossEntropy
from segatlas.losses.overlap import Dice
from segatlas.renamed import old_attribute


class CrossEntropyDice(Loss):
    """(1 - dice_fraction) * CrossEntropy + dice_fraction * Dice.

    Args:
        label_smoothing: of the cross-entropy.
        dice_fraction: fraction of Dice in the sum, 0..1.
        smooth: of Dice.
        class_weights: (K,) for both parts, or None.
    """

    dice_share = old_attribute("dice_share", "dice_fraction")

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        dice_fraction: float = 0.5,
        smooth: float = 1.0,
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.cross_entropy = CrossEntropy(label_smoothing=label_smoothing, class_weights=class_weights)
        self.dice = Dice(smooth=smooth, class_weights=class_weights)
        self.dice_fraction = dice_fraction

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        cross_entropy = self.cross_entropy(logits, labels, canvas, align_corners)
        dice = self.dice(logits, labels, canvas, align_corners)
        return (1 - self.dice_fraction) * cross_entropy + self.dice_fraction * dice
