"""Lovász-Softmax: a surrogate of the mean IoU that gradients can follow.

Letters: N batch, K classes, (h, w) logits, (H, W) labels, M labelled pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.losses.base import Loss, mean_over_classes
from segatlas.ops import raise_logits
from segatlas.structures import IGNORE


class Lovasz(Loss):
    """Lovász-Softmax (Berman et al. 2018, https://arxiv.org/abs/1705.08790), mean over the classes in the labels.

    It sorts all labelled pixels, so it is the one loss that makes the full-size probabilities, (N, K, H, W).

    Args:
        per_image: mean over the pictures that have labels, in place of one set of pixels a batch.
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
        _check(logits, labels, canvas)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        size = (labels.shape[1], labels.shape[2])
        raised = raise_logits(logits, size, canvas=canvas, align_corners=align_corners)
        probabilities = raised.softmax(1).movedim(1, -1)
        if not self.per_image:
            return _of_pixels(probabilities, labels, weights)
        values = [_of_pixels(p, one, weights) for p, one in zip(probabilities, labels, strict=True)]
        labelled = (labels != IGNORE).flatten(1).any(1)
        return mean_over_classes(torch.stack(values), labelled, None)


def _of_pixels(probabilities: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the loss of one set of pixels: probabilities (..., K), labels (...)."""
    labelled = labels != IGNORE
    probabilities, labels = probabilities[labelled], labels[labelled]
    classes = probabilities.shape[1]
    present = torch.bincount(labels.int(), minlength=classes) > 0
    if len(present) > classes:
        raise UsageError(f"label {len(present) - 1} in a loss over {classes} classes (0..{classes - 1})")
    absent = (probabilities * 0).sum()  # 0, and part of the graph
    losses = [
        _of_class(probabilities[:, k], labels == k) if there else absent for k, there in enumerate(present.tolist())
    ]
    return mean_over_classes(torch.stack(losses), present, weights)


def _of_class(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the Lovász extension of the Jaccard loss of one class at its errors: probability (M,), truth (M,) bool."""
    errors = (truth.to(probability.dtype) - probability).abs()
    errors, order = errors.sort(descending=True)
    return errors @ jaccard_steps(truth[order]).to(errors.dtype)


def jaccard_steps(truth: Tensor) -> Tensor:
    """Return by how much the Jaccard loss 1 - I / U grows when each pixel in turn becomes wrong, (M,) float64.

    A wrong pixel of the class takes one from I: the step is 1 / U. Any other wrong pixel adds one to U: the step is
    I / (U - 1) - I / U. Whole numbers throughout, so that the small steps of large pictures keep all their digits.

    Args:
        truth: (M,) bool, pixels of the class in the order in which they become wrong; at least one is True.
    """
    count = truth.sum()
    shared = count - truth.cumsum(0)
    union = count + (~truth).cumsum(0)
    return torch.where(truth, 1 / union.double(), shared / (union * (union - 1).clamp(min=1)).double())


def _check(logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None) -> None:
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise UsageError(f"expected (N, K, h, w) logits and (N, H, W) labels, got {shapes}")
    if canvas is not None and (canvas[0] < labels.shape[1] or canvas[1] < labels.shape[2]):
        raise UsageError(f"labels {tuple(labels.shape[1:])} do not fit on the canvas {tuple(canvas)}")
