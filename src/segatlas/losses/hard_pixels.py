"""Cross-entropy over the hardest pixels of a batch, of networks whose pixels also point at centres.

Letters: N batch, K classes, H W image, h w network output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas
from segatlas.losses.of_segments import OfSegments
from segatlas.structures import CentersAndOffsets, SegmentsTarget

if TYPE_CHECKING:
    from torch import Tensor


class HardPixels(OfSegments):
    """Cross-entropy over a fraction of all pixels of a batch: the hardest (Yang et al. 2019, DeeperLab, section 3.4).

    Pixels of small things weigh more, before the hardest are chosen. How many are kept is a fraction of all pixels of
    the images, those without a label too, which cost nothing; what they cost is divided by that number.

    In place of logits and labels it takes the network's whole output, and a sequence of `SegmentsTarget`, one an image,
    that cover the top left part of the canvas.
    """

    name: Literal["hard_pixels"] = "hard_pixels"
    kept: float = Field(0.2, gt=0, le=1, description="fraction of all pixels that counts: the hardest; 1 = all")
    small_area: int = Field(4096, ge=0, description="things of fewer pixels are small")
    small_weight: float = Field(3.0, gt=0, le=1e6, description="what a pixel of a small thing weighs")
    crowds: bool = Field(False, description="pixels of crowds count with their class, as in Detectron2")

    def value(
        self,
        logits: CentersAndOffsets,
        labels: Sequence[SegmentsTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_log_likelihood
        from segatlas.ops.center_maps import maps_of_segments

        semantic = logits.semantic
        assert semantic is not None
        wanted = maps_of_segments(labels, semantic.device, crowds=self.crowds)
        likelihood = upsampled_log_likelihood(
            semantic, wanted.labels, canvas=logits.canvas, align_corners=logits.resample.align_corners
        )
        small = (wanted.areas > 0) & (wanted.areas < self.small_area)
        costs = (-likelihood * small.to(likelihood).mul(self.small_weight - 1).add(1)).flatten()
        if self.kept < 1:
            costs = costs.topk(max(int(self.kept * costs.numel()), 1)).values
        return costs.mean()


LOSS = HardPixels
