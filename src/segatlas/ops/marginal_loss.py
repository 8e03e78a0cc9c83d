"""Cross-entropy where an image was searched for some classes only: the probabilities of all others count together.

A pixel whose label is an annotated class a costs -log p_a. One whose label is another class is known to have one of the
classes that were not annotated, and costs -log of the sum of their probabilities (Fang and Yan 2020; Shi et al. 2021).
Images are walked one by one, value and gradient of each at full size, so that the memory is that of one image.

Letters: N batch, K classes, (h, w) logits, (H, W) labels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segatlas.errors import UsageError
from segatlas.ops.labels import check_labels, size_of
from segatlas.ops.upsampled_loss import upsampled_cross_entropy
from segatlas.ops.upsampling import upsample_logits
from segatlas.structures import IGNORE


def upsampled_marginal_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    annotated: Tensor | None,
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the mean over labelled pixels of logits upsampled bilinearly to the canvas, a scalar; 0 without any.

    Where all classes are annotated it is `upsampled_cross_entropy`.

    Args:
        logits: (N, K, h, w) float.
        labels: (N, H, W) uint8 or int, 0..K-1 or 255; a class that is not annotated stands for all that are not.
        annotated: (N, K) bool; None = all.
        canvas: (H', W') pixels that the logits cover; default (H, W).
        align_corners: as in `torch.nn.functional.interpolate`.
        weight: (K,) weight of each class; the classes that count together have the mean of theirs.

    Raises:
        UsageError: shapes do not fit together, or a label is out of range.
    """
    check_labels(logits, labels, canvas, IGNORE)
    if annotated is not None and annotated.shape != logits.shape[:2]:
        raise UsageError(f"annotated {tuple(annotated.shape)} does not fit logits {tuple(logits.shape)}")
    if annotated is None or bool(annotated.all()):
        return upsampled_cross_entropy(logits, labels, canvas=canvas, align_corners=align_corners, weight=weight)
    loss: Tensor = _Marginal.apply(logits, labels, annotated, canvas, align_corners, weight)
    return loss


def marginal_terms(upsampled: Tensor, labels: Tensor, annotated: Tensor, weight: Tensor | None) -> tuple[Tensor, float]:
    """Return the weighted sum of the loss of one image, and the sum of the weights.

    Args:
        upsampled: (K, H, W) logits at full size.
        labels: (H, W) int.
        annotated: (K,) bool.
        weight: (K,) or None.
    """
    labelled = labels != IGNORE
    kinds = labels[labelled].long()
    of_pixels = upsampled[:, labelled]  # (K, P)
    total = of_pixels.logsumexp(dim=0)
    own = of_pixels.gather(0, kinds[None])[0]
    if not bool(annotated.all()):
        rest = of_pixels[~annotated].logsumexp(dim=0)
        own = torch.where(annotated[kinds], own, rest)
    if weight is None:
        return (total - own).sum(), float(len(kinds))
    table = weight.to(upsampled)
    if not bool(annotated.all()):
        table = torch.where(annotated, table, table[~annotated].mean())
    of_each = table[kinds]
    return ((total - own) * of_each).sum(), float(of_each.sum())


class _Marginal(torch.autograd.Function):
    """See `upsampled_marginal_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        annotated: Tensor,
        canvas: tuple[int, int] | None,
        align_corners: bool,
        weight: Tensor | None,
    ) -> Tensor:
        exact = logits.detach() if logits.element_size() >= 4 else logits.detach().float()
        gradient, total, weights = torch.zeros_like(exact), exact.new_zeros(()), 0.0
        for index, (label, flags) in enumerate(zip(labels, annotated.bool(), strict=True)):
            with torch.enable_grad():
                given = exact[index : index + 1].requires_grad_()
                whole = upsample_logits(given, size_of(labels), canvas=canvas, align_corners=align_corners)[0]
                value, count = marginal_terms(whole, label, flags, weight)
                (gradient[index : index + 1],) = torch.autograd.grad(value, given)
            total += value.detach()
            weights += count
        divisor = weights if weights > 0 else 1.0
        ctx.save_for_backward(gradient / divisor)
        ctx.kind = logits.dtype
        return total / divisor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (upstream * gradient).to(ctx.kind), None, None, None, None, None
