"""Losses of regions: Dice, Tversky, and Dice beside cross-entropy.

All compare, class by class, the summed probabilities with the labels over the whole batch. The mean runs over the
classes that occur in the batch's labels: a class without a pixel has no overlap to speak of, and its false positives
already cost the classes they were taken from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segatlas.losses.cross_entropy import CrossEntropy
from segatlas.ops import upsampled_overlap


class Tversky(nn.Module):
    """Mean over classes of (1 - index)^gamma, with index = TP / (TP + alpha FP + beta FN) (Salehi et al. 2017).

    TP, FP, FN are sums of probabilities; `smooth` is added to numerator and denominator.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: exponent on (1 - index): the focal Tversky loss of Abraham and Khan 2019 for gamma != 1.
        smooth: added pixels, against division by zero.
        class_weights: (K,) factor of each class in the mean.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 1.0,
        smooth: float = 1.0,
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smooth = smooth

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        hit, predicted, labelled = upsampled_overlap(logits, labels, canvas=canvas, align_corners=align_corners)
        mistakes = self.alpha * (predicted - hit) + self.beta * (labelled - hit)
        # The floor decides only for absent classes with smooth = 0, which the mean leaves out.
        index = (hit + self.smooth) / (hit + mistakes + self.smooth).clamp(min=torch.finfo(hit.dtype).tiny)
        shortfall = (1 - index).clamp(min=torch.finfo(hit.dtype).eps) if self.gamma != 1 else 1 - index
        return mean_over_present(shortfall**self.gamma, labelled, self.class_weights)


class Dice(Tversky):
    """Mean over classes of 1 - (2 TP + smooth) / (2 TP + FP + FN + smooth) (Milletari et al. 2016).

    Args:
        smooth: added to numerator and denominator.
        class_weights: (K,) factor of each class in the mean.
    """

    def __init__(self, *, smooth: float = 1.0, class_weights: Tensor | None = None):
        # Dice is the Tversky index with both weights one half, numerator and denominator doubled.
        super().__init__(alpha=0.5, beta=0.5, smooth=smooth / 2, class_weights=class_weights)


class CrossEntropyDice(nn.Module):
    """(1 - dice_share) * cross-entropy + dice_share * Dice.

    Args:
        label_smoothing: of the cross-entropy, 0..1.
        dice_share: share of Dice in the sum, 0..1.
        smooth: of the Dice part.
        class_weights: (K,) factor of each class, in both parts.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        dice_share: float = 0.5,
        smooth: float = 1.0,
        class_weights: Tensor | None = None,
    ):
        super().__init__()
        self.cross_entropy = CrossEntropy(class_weights=class_weights, label_smoothing=label_smoothing)
        self.dice = Dice(smooth=smooth, class_weights=class_weights)
        self.dice_share = dice_share

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        pixels = self.cross_entropy(logits, labels, canvas, align_corners)
        regions = self.dice(logits, labels, canvas, align_corners)
        return (1 - self.dice_share) * pixels + self.dice_share * regions


def mean_over_present(values: Tensor, labelled: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the mean of values (K,) over classes with labelled (K,) > 0, weighted by class; 0 without any."""
    share = (labelled > 0).to(values.dtype)
    if class_weights is not None:
        share = share * class_weights.to(share)
    divisor = share.sum()
    return (values * share).sum() / divisor.where(divisor > 0, 1)
