"""Gated CRF: neighbours of one colour should have one class, whatever their labels say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.around import LossAround, pooled_image, pooled_probabilities
from segatlas.losses.loss import Canvas

if TYPE_CHECKING:
    from torch import Tensor


class GatedCRF(LossAround):
    """Gated CRF loss: pixels that are near and of one colour cost where their classes differ.

    Obukhov et al. 2019, https://arxiv.org/abs/1906.04651. With y the probabilities, the mean over pixels i of the sum
    over j of k_ij (1 - y_i . y_j), where k_ij = exp(-|x_i - x_j|^2 / (2 xy_sigma^2) - |c_i - c_j|^2 /
    (2 color_sigma^2)) for pixels j at most `radius` rows and columns away, padding left out. It reads no labels: it
    goes beside a loss of the few labelled pixels. Of a map that shows one class for certain it is 0.
    """

    tiny: ClassVar = {"radius": 2, "after": 0.0}

    name: Literal["gated_crf"] = "gated_crf"
    weight: float = Field(0.1, gt=0, le=1e6, description="factor of this term in the sum")
    radius: int = Field(5, ge=1, le=50, description="rows and columns to each side, on the map")
    xy_sigma: float = Field(6.0, gt=0, le=1e4, description="how far near is, in pixels of the map")
    color_sigma: float = Field(
        0.1, gt=0, le=1e4, description="how much colours of one thing differ, in units of the normalised image"
    )
    stride: int = Field(4, ge=1, le=64, description="pixels of the image that a pixel of the map has at least, a side")
    after: float = Field(0.005, ge=0, lt=1, description="fraction of the training before it begins to count")

    def value(
        self, logits: Any, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops.gated_crf import gated_crf_energy

        around, part = logits.around, logits.part
        whole = canvas or (labels.shape[-2], labels.shape[-1])
        y = pooled_probabilities(part, whole, self.stride)
        if around.progress < self.after:
            return (y * 0).sum()
        color, valid = pooled_image(around.image.to(y), around.valid, canvas, (y.shape[-2], y.shape[-1]))
        return gated_crf_energy(
            y, color, valid, radius=self.radius, xy_sigma=self.xy_sigma, color_sigma=self.color_sigma
        )


LOSS = GatedCRF
