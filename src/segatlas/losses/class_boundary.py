"""Overlap of class boundaries: the multi-class boundary label against the boundaries of the network's probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from segatlas.losses.boundary import near_boundary
from segatlas.losses.loss import Canvas, Loss, mean_over_classes, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class ClassBoundary(Loss):
    """Overlap of class boundaries, 1 - Dice: where classes meet, is each pixel of the boundary of its class?

    With p the probabilities at the labels' size and W(x) the labelled pixels at most `width` rows and columns from x:

    - truth: t_k(x) = 1 where x has the label k and W(x) has another label, which is the multi-class boundary label
    - prediction: b_k(x) = p_k(x) max over y in W(x) of (1 - p_k(y)); of certain probabilities the same label of them
    - loss: 1 - mean over classes k of 2 sum(b_k t_k) / (sum(b_k) + sum(t_k)), sums over the batch's labelled pixels

    The mean runs over classes whose boundary occurs in the batch. It is to go beside a loss that sees all pixels: away
    from boundaries it only asks for none. It makes the logits at the labels' size, K maps a few times over.
    """

    tiny: ClassVar = {"width": 1}

    name: Literal["class_boundary"] = "class_boundary"
    width: int = Field(2, ge=1, le=1000, description="pixels on each side of a boundary")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from torch.nn.functional import max_pool2d

        from segatlas.ops import upsample_logits
        from segatlas.ops.labels import check_labels

        size = (labels.shape[-2], labels.shape[-1])
        upsampled = upsample_logits(precise(logits), size, canvas=canvas, align_corners=align_corners)
        check_labels(upsampled, labels, canvas, IGNORE)
        labelled = (labels != IGNORE).unsqueeze(1)
        chances = upsampled.softmax(dim=1) * labelled
        others = (1 - chances) * labelled
        side = 2 * self.width + 1
        others = max_pool2d(others, (1, side), stride=1, padding=(0, self.width))
        others = max_pool2d(others, (side, 1), stride=1, padding=(self.width, 0))
        found = chances * others
        classes = labels.unsqueeze(1) == _numbers(logits)
        truth = (classes & near_boundary(labels, self.width).unsqueeze(1)).to(found)
        both, predicted, true = ((part).sum((0, 2, 3)) for part in (found * truth, found, truth))
        dice = quotient(2 * both, predicted + true)
        present = true > 0
        # Without any boundary in the batch the sum of nothing keeps the graph.
        return present.any().to(found) - mean_over_classes(dice, present, class_weights)


def _numbers(logits: Tensor) -> Tensor:
    """Return the numbers of the classes, (1, K, 1, 1)."""
    import torch

    return torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)


LOSS = ClassBoundary
