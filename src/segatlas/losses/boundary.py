"""Cross-entropy with pixels near a change of label weighted up."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class Boundary(Loss):
    """Cross-entropy with pixels near a change of label weighted up.

    The weighted mean: boundary pixels weigh `factor`, the others 1, each times its class weight. The divisor is the sum
    of the weights: a larger factor moves the balance, not the size.
    """

    tiny: ClassVar = {"width": 1}

    name: Literal["boundary"] = "boundary"
    width: int = Field(3, ge=1, le=1000, description="pixels on each side of a change")
    factor: float = Field(5.0, ge=1, le=1e6, description="weight of those pixels; the others have 1")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_cross_entropy

        return upsampled_cross_entropy(
            logits,
            labels,
            canvas=canvas,
            align_corners=align_corners,
            weight=class_weights,
            pixel_weight=near_boundary(labels, self.width) * (self.factor - 1.0) + 1.0,
        )


def near_boundary(labels: Tensor, width: int) -> Tensor:
    """Return where a pixel has another label at most `width` rows and `width` columns away, (N, H, W) bool.

    Args:
        labels: (N, H, W) integer; 255 is no label: such pixels are never near, and a border to them is no boundary.
        width: pixels, at least 1.
    """
    import torch
    from torch.nn.functional import max_pool2d

    labelled = labels != IGNORE
    values = labels.float()
    nothing = values.new_tensor(-torch.inf)
    # One pooling for the largest label of the window and, by the sign, for the smallest.
    both = torch.stack([values.where(labelled, nothing), (-values).where(labelled, nothing)], 1)
    columns = max_pool2d(both, (1, 2 * width + 1), stride=1, padding=(0, width))
    largest, smallest = max_pool2d(columns, (2 * width + 1, 1), stride=1, padding=(width, 0)).unbind(1)
    return labelled & (largest != -smallest)


LOSS = Boundary
