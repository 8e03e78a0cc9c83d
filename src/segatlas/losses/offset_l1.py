"""How far pixels of things point beside their centre, of networks that say classes and centres besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from segatlas.losses.loss import Canvas
from segatlas.losses.of_segments import OfSegments
from segatlas.structures import CentersAndOffsets, SegmentsTarget

if TYPE_CHECKING:
    from torch import Tensor


class OffsetL1(OfSegments):
    """Mean of |dy| + |dx|, in pixels of the image, over the pixels of things that are no crowd; 0 where there is none.

    In place of logits and labels it takes the network's whole output, and a sequence of `SegmentsTarget`, one an image,
    that cover the top left part of the canvas.
    """

    name: Literal["offset_l1"] = "offset_l1"

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

        wanted = maps_of_segments(labels, logits.offsets.device)
        size = (wanted.inside.shape[1], wanted.inside.shape[2])
        align = logits.resample.align_corners
        found = upsample_logits(precise(logits.offsets), size, canvas=logits.canvas, align_corners=align)
        distance = (found - wanted.offsets).abs().sum(1)
        return (distance * wanted.inside).sum() / wanted.inside.sum().clamp(min=1)


LOSS = OffsetL1
