"""What a Predictor returns for one image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segatlas.errors import TaskError


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a Predictor returns for one image, always in the image's own size.

    `semantic`, `instances` and `panoptic` raise TaskError when the model cannot give them.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    class_map: np.ndarray | None = None
    confidence: np.ndarray | None = None
    source: str = ""
    image: np.ndarray | None = field(default=None, repr=False)

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) class index per pixel, uint8 for up to 255 classes, else int32."""
        if self.class_map is None:
            raise TaskError("this model gives no semantic map")
        return self.class_map

    @property
    def instances(self) -> list[object]:
        """Instance masks with scores and classes."""
        raise TaskError(f"this model gives no instances; it can give: {', '.join(self._available())}")

    @property
    def panoptic(self) -> object:
        """Panoptic segment map and segments."""
        raise TaskError(f"this model gives no panoptic result; it can give: {', '.join(self._available())}")

    def areas(self) -> dict[str, int]:
        """Return the pixel count of each class that occurs in the image."""
        index, count = np.unique(self.semantic, return_counts=True)
        return {self.classes[int(i)]: int(n) for i, n in zip(index, count, strict=True)}

    def _available(self) -> list[str]:
        return ["semantic"] if self.class_map is not None else []
