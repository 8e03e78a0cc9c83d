"""What the losses on the maps of Panoptic-DeepLab share: it is no loss itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from segatlas.losses.loss import Loss
from segatlas.structures import CentersAndOffsets

if TYPE_CHECKING:
    from torch import Generator, Tensor


class OfSegments(Loss):
    """A loss that takes the whole output of a network with classes and centres, and the segments of each image."""

    output: ClassVar = "CentersAndOffsets"
    takes: ClassVar = "centres, offsets and classes of all pixels (CentersAndOffsets)"
    weighted: ClassVar = False

    def given(self, output: CentersAndOffsets) -> CentersAndOffsets:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, CentersAndOffsets) and logits.semantic is not None

    def example(self, labels: Tensor, classes: int, draw: Generator) -> CentersAndOffsets:
        """See `Loss`."""
        import torch

        count, height, width = labels.shape
        centers, offsets, semantic = (
            torch.randn(count, channels, height, width, generator=draw) for channels in (1, 2, classes)
        )
        return CentersAndOffsets(centers, offsets, None, canvas=(height, width), semantic=semantic)
