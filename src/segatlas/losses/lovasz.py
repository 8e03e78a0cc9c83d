"""Lovász-Softmax: a surrogate of the mean IoU that gradients can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, mean_over_classes
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class Lovasz(Loss):
    """Lovász-Softmax: a smooth surrogate of the mean IoU.

    Berman et al. 2018, https://arxiv.org/abs/1705.08790; the (weighted) mean is over the classes in the labels, with
    `per_image` over the images that have labels.
    """

    name: Literal["lovasz"] = "lovasz"
    per_image: bool = Field(False, description="mean over images, in place of one set of pixels a batch")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        import torch

        from segatlas.ops import upsampled_lovasz

        if not self.per_image or len(logits) != len(labels):
            return upsampled_lovasz(logits, labels, canvas=canvas, align_corners=align_corners, weight=class_weights)
        values = [
            upsampled_lovasz(
                logits[i : i + 1], labels[i : i + 1], canvas=canvas, align_corners=align_corners, weight=class_weights
            )
            for i in range(len(logits))
        ]
        labelled = (labels != IGNORE).flatten(1).any(1)
        return mean_over_classes(torch.stack(values), labelled, None)


LOSS = Lovasz
