"""Keep the splines of an alignment smooth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.keypoint_equivariance import mean_over_labelled
from segatlas.losses.loss import Canvas, Loss, precise

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Bending(Loss):
    """The mean squared length of the weights of thin-plate splines, (N, P, 2): 0 of what only moves, turns or scales.

    It is no bending energy in the strict sense, which weighs pairs of points by their distance, but as that it is 0
    for affine splines alone. Images without any labelled pixel do not count.
    """

    takes: ClassVar = "weights of splines (N, P, 2), such as those of aux.bending"
    weighted: ClassVar = False

    name: Literal["bending"] = "bending"
    on: str = Field("aux.bending", pattern=r"^aux\.\w+$", description="what gives the weights")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `canvas` and `align_corners` play no part."""
        return mean_over_labelled(precise(logits).square().sum(2).mean(1), labels)

    def fits(self, logits: Any) -> bool:
        """Tell whether there are two numbers for each of some points of each image."""
        return getattr(logits, "ndim", 0) == 3 and logits.shape[2] == 2

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        import torch

        return torch.randn(len(labels), classes, 2, generator=draw, dtype=torch.float64)


LOSS = Bending
