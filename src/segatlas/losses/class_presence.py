"""Tell which classes an image shows: the semantic encoding loss of EncNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor


class ClassPresence(Loss):
    """Which classes an image shows, for the presence head of context encoding: binary cross-entropy.

    Zhang et al. 2018, https://arxiv.org/abs/1803.08904, section 3.2: whether each class occurs in the image's label,
    the (weighted) mean over labelled images and classes. An image without any labelled pixel says nothing about its
    classes and does not count; one labelled in part counts, and a class is present where a labelled pixel has it.
    """

    takes: ClassVar = "logits of classes (N, K), such as those of aux.presence"

    name: Literal["class_presence"] = "class_presence"
    on: str = Field("aux.presence", pattern=r"^aux\.\w+$", description="the head that tells which classes occur")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `canvas` and `align_corners` play no part."""
        from torch.nn import functional as F

        logits = precise(logits)
        presence = class_presence(labels, logits.shape[1]).to(logits)
        labelled = (labels != IGNORE).flatten(1).any(1).to(logits)
        weight = logits.new_ones(logits.shape[1]) if class_weights is None else class_weights.to(logits)
        each = F.binary_cross_entropy_with_logits(logits, presence, reduction="none")
        return quotient((each * weight * labelled.unsqueeze(1)).sum(), labelled.sum() * weight.sum())

    def fits(self, logits: Any) -> bool:
        """Tell whether there is one logit for each class and image."""
        return getattr(logits, "ndim", 0) == 2

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        import torch

        return torch.randn(len(labels), classes, generator=draw, dtype=torch.float64)


def class_presence(labels: Tensor, num_classes: int) -> Tensor:
    """Return (N, K) bool: which classes occur in labels (N, H, W) of 0..K-1 or 255."""
    import torch

    flat = labels.flatten(1).long()
    found = torch.zeros(len(flat), max(num_classes, IGNORE) + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, flat, value=True)
    return found[:, :num_classes]


LOSS = ClassPresence
