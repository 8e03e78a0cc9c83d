"""Losses of region overlap: Dice and Tversky.

Both compare, class by class, softmax probabilities with the labels over all labelled pixels of the batch, and take the
mean over the classes that occur in the batch's labels. An absent class has no region to overlap: what is wrongly given
to it is missing in a class that is there, and counts there.
"""

from __future__ import annotations

from torch import Tensor

from segatlas.losses.base import Loss, mean_over_classes
from segatlas.ops import upsampled_overlap

TINY = 1e-7
"""Least value of 1 - index: a power below one has no finite slope at 0."""


class Dice(Loss):
    """One minus the Dice coefficient (V-Net, Milletari et al. 2016, https://arxiv.org/abs/1606.04797, without squares).

    Dice = (2 I + smooth) / (P + L + smooth) with I the probability on the class's own pixels, P on all, L their number.

    Args:
        smooth: added above and below the fraction, in pixels.
        class_weights: (K,) weights of the mean over classes, or None.
    """

    def __init__(self, *, smooth: float = 1.0, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.smooth = smooth

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        weights = self.weights_for(logits)
        shared, predicted, labelled = upsampled_overlap(logits, labels, canvas=canvas, align_corners=align_corners)
        dice = _fraction(2 * shared + self.smooth, predicted + labelled + self.smooth)
        return mean_over_classes(1 - dice, labelled > 0, weights)


class Tversky(Loss):
    """One minus the Tversky index (Salehi et al. 2017, https://arxiv.org/abs/1706.05721), to the power gamma.

    Index = (TP + smooth) / (TP + alpha FP + beta FN + smooth). The exponent is that of the focal Tversky loss (Abraham
    and Khan 2018, https://arxiv.org/abs/1810.07842; their gamma is one over ours).

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: exponent of (1 - index).
        smooth: added above and below the fraction, in pixels.
        class_weights: (K,) weights of the mean over classes, or None.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1.0,
        class_weights: Tensor | None = None,
    ):
        super().__init__(class_weights)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smooth = smooth

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        weights = self.weights_for(logits)
        shared, predicted, labelled = upsampled_overlap(logits, labels, canvas=canvas, align_corners=align_corners)
        false = self.alpha * (predicted - shared) + self.beta * (labelled - shared)
        index = _fraction(shared + self.smooth, shared + false + self.smooth)
        return mean_over_classes((1 - index).clamp(min=TINY) ** self.gamma, labelled > 0, weights)


def _fraction(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and above itself where below is 0: a class that is absent, without `smooth`."""
    return above / below.where(below > 0, below.new_ones(()))
