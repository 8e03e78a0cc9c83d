"""Cross-entropy over hard pixels only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from segatlas.losses.loss import Canvas, Loss

if TYPE_CHECKING:
    from torch import Tensor


class Ohem(Loss):
    """Cross-entropy over hard pixels only: those whose true class scores below `threshold`, but at least `min_kept`.

    Online hard example mining (Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540), pixel by pixel; class
    weights are those of the mean over kept pixels, with `count_ignored` over all pixels, with `by_count` factors alone.
    """

    tiny: ClassVar = {"min_kept": 1}

    name: Literal["ohem"] = "ohem"
    threshold: float = Field(0.7, gt=0, le=1, description="pixels whose true class scores below it are hard")
    min_kept: int = Field(100_000, ge=1, description="pixels per batch kept at least")
    count_ignored: bool = Field(
        False, description="divide by all pixels, easy and ignored ones too, as MMSegmentation does by default"
    )
    by_count: bool = Field(
        False,
        description="divide by how many pixels are kept, not by their class weights, as MMSegmentation's "
        "OhemCrossEntropy and the authors of HRNet, DDRNet and PIDNet",
    )

    @model_validator(mode="after")
    def _one_divisor(self) -> Ohem:
        if self.by_count and self.count_ignored:
            raise ValueError("by_count and count_ignored name two divisors, expected one")
        return self

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_ohem

        return upsampled_ohem(
            logits,
            labels,
            threshold=self.threshold,
            min_kept=self.min_kept,
            canvas=canvas,
            align_corners=align_corners,
            weight=class_weights,
            count_ignored=self.count_ignored,
            by_count=self.by_count,
        )


LOSS = Ohem
