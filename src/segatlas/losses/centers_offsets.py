"""The loss of networks that find objects by their centres: their maps against those drawn from the true objects.

Letters: N batch, K classes, h w network output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss
from segatlas.structures import CentersAndOffsets, InstancesTarget

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from segatlas.ops.center_maps import CenterMaps

HARD, NEAR = 2.0, 4.0
"""Exponents of the focal loss on centres: easy cells, and cells near a centre, count less (Law, Deng, ECCV 2018)."""


class CentersOffsets(Loss):
    """Objects by their centres: focal loss on centres, L1 on offsets, binary cross-entropy on the foreground.

    The weighted sum of three parts. Focal loss on centres is divided by the number of objects of the batch, L1 (in
    cells of the output) is the mean over the pixels of objects, binary cross-entropy on the foreground the mean over
    all cells and classes. A batch without anything to judge has a loss of 0 with zero gradient.

    In place of logits and labels it takes the network's whole output, and a sequence of `InstancesTarget`, one an
    image, whose masks (M, H, W) cover the top left part of the canvas.
    """

    output: ClassVar = "CentersAndOffsets"
    takes: ClassVar = "centres, offsets and foreground (CentersAndOffsets)"
    weighted: ClassVar = False

    name: Literal["centers_offsets"] = "centers_offsets"
    center_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the focal loss on centres")
    offset_weight: float = Field(0.1, ge=0, le=1e6, description="factor of L1 on offsets, in cells of the output")
    foreground_weight: float = Field(10.0, ge=0, le=1e6, description="factor of binary cross-entropy on the foreground")

    def parts(
        self,
        logits: CentersAndOffsets,
        labels: Sequence[InstancesTarget],
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the three parts, before their factors. Canvas and way of upsampling are those of the output."""
        from segatlas.ops.center_maps import maps_of_targets

        self.check(logits, class_weights)
        assert logits.foreground is not None
        centers, offsets, foreground = logits.centers.float(), logits.offsets.float(), logits.foreground.float()
        wanted = maps_of_targets(logits, labels)
        cell = logits.canvas[0] / centers.shape[-2]
        return {
            "centers": center_loss(centers, wanted),
            "offsets": offset_loss(offsets, wanted) / cell,
            "foreground": foreground_loss(foreground, wanted),
        }

    def value(
        self,
        logits: CentersAndOffsets,
        labels: Sequence[InstancesTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the three parts."""
        return (
            self.center_weight * parts["centers"]
            + self.offset_weight * parts["offsets"]
            + self.foreground_weight * parts["foreground"]
        )

    def given(self, output: CentersAndOffsets) -> CentersAndOffsets:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, CentersAndOffsets) and logits.foreground is not None

    def example(self, labels: Tensor, classes: int, draw: Generator) -> CentersAndOffsets:
        """See `Loss`."""
        import torch

        count, height, width = labels.shape
        centers, offsets, foreground = (
            torch.randn(count, channels, height, width, generator=draw) for channels in (1, 2, classes)
        )
        return CentersAndOffsets(centers, offsets, foreground, canvas=(height, width))


def center_loss(logits: Tensor, wanted: CenterMaps) -> Tensor:
    """Return the focal loss of the heat maps (N, 1, h, w), divided by the number of centres."""
    from torch.nn import functional as F

    is_center = wanted.centers == 1
    p = logits.sigmoid()
    hit = (1 - p) ** HARD * F.logsigmoid(logits) * is_center
    miss = (1 - wanted.centers) ** NEAR * p**HARD * F.logsigmoid(-logits) * ~is_center
    return -((hit + miss) * wanted.judged.unsqueeze(1)).sum() / is_center.sum().clamp(min=1)


def offset_loss(offsets: Tensor, wanted: CenterMaps) -> Tensor:
    """Return the mean distance |dy| + |dx| in pixels of the canvas, over the cells of objects."""
    counted = wanted.inside & wanted.judged
    distance = (offsets - wanted.offsets).abs().sum(1)
    return (distance * counted).sum() / counted.sum().clamp(min=1)


def foreground_loss(logits: Tensor, wanted: CenterMaps) -> Tensor:
    """Return the mean binary cross-entropy over judged cells and classes."""
    from torch.nn import functional as F

    each = F.binary_cross_entropy_with_logits(logits, wanted.foreground, reduction="none")
    return (each * wanted.judged.unsqueeze(1)).sum() / (wanted.judged.sum() * logits.shape[1]).clamp(min=1)


LOSS = CentersOffsets
