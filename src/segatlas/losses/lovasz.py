"""Lovász-Softmax: a surrogate of the mean IoU that gradients can follow."""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.losses.base import Loss, mean_over_classes
from segatlas.ops import upsampled_lovasz
from segatlas.structures import IGNORE


class Lovasz(Loss):
    """Lovász-Softmax (Berman et al. 2018, https://arxiv.org/abs/1705.08790), mean over the classes in the labels.

    Args:
        per_image: mean over the images that have labels, in place of one set of pixels a batch.
        class_weights: (K,) weights of the mean over classes, or None.
    """

    def __init__(self, *, per_image: bool = False, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.per_image = per_image

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        weights = self.weights_for(logits)
        if not self.per_image or len(logits) != len(labels):
            return upsampled_lovasz(logits, labels, canvas=canvas, align_corners=align_corners, weight=weights)
        values = [
            upsampled_lovasz(
                logits[i : i + 1], labels[i : i + 1], canvas=canvas, align_corners=align_corners, weight=weights
            )
            for i in range(len(logits))
        ]
        labelled = (labels != IGNORE).flatten(1).any(1)
        return mean_over_classes(torch.stack(values), labelled, None)
