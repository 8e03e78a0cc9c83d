"""A sample: one image with its label and further sources, as it comes from a dataset and goes through transforms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

SourceKind = Literal["image", "label"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A further array of a sample that lies on the same pixels (reference image, prior mask, extra channels).

    kind "image" is warped with interpolation, "label" takes the nearest value and is padded with 255.
    """

    array: np.ndarray
    kind: SourceKind = "image"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its truth.

    image: (H, W, C) uint8, uint16 or float32, RGB order where C is 3.
    label: (H, W) uint8, 0..K-1, 255 = ignore; None where there is no truth.
    key: unique name within the split (relative path without ending).
    """

    image: np.ndarray
    label: np.ndarray | None
    key: str
    index: int = 0
    sources: dict[str, Source] = field(default_factory=dict)
