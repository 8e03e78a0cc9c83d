"""A sample: one image with its truth and further sources, as it comes from a dataset and goes through transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segatlas.structures import SemanticTarget, SourceKind, Target


@dataclass(frozen=True, kw_only=True)
class Source:
    """A further array of a sample that lies on the same pixels: an image of another date, heights, a prior mask.

    array: (H, W, C) as the image for kind "image", (H, W) or (H, W, C') for "map", (H, W) uint8 for "label"; what
    the kinds mean stands at `segatlas.structures.InputSpec`.
    """

    array: np.ndarray
    kind: SourceKind = "image"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its truth.

    image: (H, W, C) uint8, uint16 or float32, RGB order where C is 3.
    target: the truth, of one of the types of `segatlas.structures.targets`; None where there is none.
    key: unique name within the split (relative path without ending).
    sources: further arrays on the same pixels, by name.
    """

    image: np.ndarray
    target: Target | None
    key: str
    index: int = 0
    sources: Mapping[str, Source] = field(default_factory=dict)

    @property
    def label(self) -> np.ndarray | None:
        """(H, W) uint8, 0..K-1, 255 = ignore, where the truth is a `SemanticTarget`; else None."""
        return np.asarray(self.target.labels) if isinstance(self.target, SemanticTarget) else None
