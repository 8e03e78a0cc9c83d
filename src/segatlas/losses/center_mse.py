"""How far a learned heat map of centres is from the true one, of networks whose pixels also point at centres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas
from segatlas.losses.of_segments import OfSegments
from segatlas.structures import CentersAndOffsets, SegmentsTarget

if TYPE_CHECKING:
    from torch import Tensor


class CenterMse(OfSegments):
    """Mean squared difference of the upsampled map of centres and Gaussians around the true ones.

    The mean is over pixels that are neither ignored nor in a crowd; 0 where there is none. A crowd's own centre is
    drawn, as the paper's authors do: what of it reaches beyond the crowd is learned.

    In place of logits and labels it takes the network's whole output, and a sequence of `SegmentsTarget`, one an image,
    that cover the top left part of the canvas.
    """

    name: Literal["center_mse"] = "center_mse"
    spread: float = Field(8.0, gt=0, le=1e4, description="standard deviation of a Gaussian, in pixels of the image")

    def value(
        self,
        logits: CentersAndOffsets,
        labels: Sequence[SegmentsTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.losses.loss import precise
        from segatlas.ops import upsample_logits
        from segatlas.ops.center_maps import maps_of_segments

        wanted = maps_of_segments(labels, logits.centers.device, spread=self.spread)
        size = (wanted.judged.shape[1], wanted.judged.shape[2])
        align = logits.resample.align_corners
        found = upsample_logits(precise(logits.centers), size, canvas=logits.canvas, align_corners=align)[:, 0]
        return ((found - wanted.centers) ** 2 * wanted.judged).sum() / wanted.judged.sum().clamp(min=1)


LOSS = CenterMse
