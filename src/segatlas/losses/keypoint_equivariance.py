"""Keypoints move with what they are on: the equivariance loss of an alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor


class KeypointEquivariance(Loss):
    """How far the keypoints of a moved source lie from where the move takes them: the mean distance along x and y.

    Siarohin et al. 2019, https://arxiv.org/abs/1812.08861, section 3.2. It takes these distances as the network gives
    them, (N, P, 2) in halves of the image's sides; images without any labelled pixel do not count.
    """

    takes: ClassVar = "distances of points (N, P, 2), such as those of aux.equivariance"
    weighted: ClassVar = False

    name: Literal["keypoint_equivariance"] = "keypoint_equivariance"
    on: str = Field("aux.equivariance", pattern=r"^aux\.\w+$", description="what gives the distances")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `canvas` and `align_corners` play no part."""
        return mean_over_labelled(precise(logits).abs().mean((1, 2)), labels)

    def fits(self, logits: Any) -> bool:
        """Tell whether there are two numbers for each of some points of each image."""
        return getattr(logits, "ndim", 0) == 3 and logits.shape[2] == 2

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        import torch

        return torch.randn(len(labels), classes, 2, generator=draw, dtype=torch.float64)


def mean_over_labelled(values: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of values (N,) over the images that have a labelled pixel; 0 if there is none."""
    labelled = (labels != IGNORE).flatten(1).any(1).to(values)
    return quotient((values * labelled).sum(), labelled.sum())


LOSS = KeypointEquivariance
