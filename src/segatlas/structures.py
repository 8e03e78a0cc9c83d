"""What travels between the rooms of the house: typed network outputs and the one result type.

Letters: N batch, K classes, H W picture, h w network output, C input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from segatlas.errors import TaskError

IGNORE = 255
"""The label value that means "not labelled": never predicted, never scored, no loss."""


class Resample(NamedTuple):
    """How logits are raised to the canvas: a fact of the published network, kept in config and card."""

    mode: str = "bilinear"
    align_corners: bool = False


class PointLogits(NamedTuple):
    """Logits at single points of the canvas, for a loss on these points alone.

    logits: (N, K, P) float, before softmax.
    points: (N, P, 2) float, x and y as shares of the canvas' width and height, 0..1.
    """

    logits: Tensor
    points: Tensor


class SemanticLogits(NamedTuple):
    """Output of a semantic network.

    logits: (N, K, h, w) float, before softmax, at the network's own stride.
    canvas: (H', W') pixels that the logits cover; larger than the input where the network padded right and bottom.
    resample: how the last raise from (h, w) to the canvas is done.
    aux: further (N, K, h', w') logits over the same canvas, or logits at points of it, by name, for losses; empty in
        eval mode.
    """

    logits: Tensor
    canvas: tuple[int, int]
    resample: Resample = Resample()
    aux: Mapping[str, Tensor | PointLogits] = {}


class Batch(NamedTuple):
    """Collated samples. images: (N, C, H, W) float, normalised; labels: (N, H, W) uint8, 0..K-1 or 255."""

    images: Tensor
    labels: Tensor
    keys: list[str]
    sources: dict[str, Tensor] = {}


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a Predictor returns for one picture, always in the picture's own size.

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
        """Return the pixel count of each class that occurs in the picture."""
        index, count = np.unique(self.semantic, return_counts=True)
        return {self.classes[int(i)]: int(n) for i, n in zip(index, count, strict=True)}

    def _available(self) -> list[str]:
        return ["semantic"] if self.class_map is not None else []
