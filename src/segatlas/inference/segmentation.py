"""What a Predictor returns for one image: its result with the classes' names and colours, and images to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segatlas import drawing
from segatlas.errors import TaskError
from segatlas.structures import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(Result):
    """What a Predictor returns for one image, always in the image's own size.

    `semantic`, `instances` and `panoptic` raise TaskError when the model cannot give them.

    size: (H, W). classes, palette: names and RGB colours by class index. source: the image's file or name, "" where it
    has none. image: (H, W, 3) uint8 RGB to look at.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str = ""
    image: np.ndarray | None = field(default=None, repr=False)

    def areas(self) -> dict[str, int]:
        """Return the pixel count of each class that occurs in the image."""
        index, count = np.unique(self.semantic, return_counts=True)
        return {self.classes[int(i)]: int(n) for i, n in zip(index, count, strict=True)}

    def mask_image(self) -> np.ndarray:
        """Return (H, W, 3) uint8: each pixel in its class's colour."""
        return drawing.color_mask(self.semantic, self.palette)

    def overlay(self, legend: bool = True) -> np.ndarray:
        """Return the image tinted with class colours, and a legend beside it: (H', W', 3) uint8; without, (H, W, 3).

        A result that has objects and no class map: each object tinted, lines between objects, no legend. One with
        segments: likewise with segments, and a legend that counts their pixels; "none" are those of no segment.

        Raises:
            TaskError: the image itself was not kept.
        """
        if self.image is None:
            raise TaskError("this result does not hold its image; overlays are drawn by segatlas.drawing.overlay")
        if self.class_map is None and self.objects is not None:
            return drawing.object_overlay(self.image, self.objects, self.palette)
        if self.segments is not None:
            return drawing.segment_overlay(self.image, self, self.palette, self.classes, legend=legend)
        return drawing.overlay(self.image, self.semantic, self.palette, self.classes, legend=legend)
