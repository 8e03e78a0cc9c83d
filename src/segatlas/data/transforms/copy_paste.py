"""Simple copy-paste: objects of a second training sample are laid over the first (Ghiasi et al., CVPR 2021).

Both samples have gone through the whole pipeline, each with its own geometry and colours, so that pasted pixels come
from where their masks do. What the pasted objects hide is taken from the masks below them; of an object that is hidden
whole, nothing stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from segatlas.data.transforms.pipeline import PreparedSample
from segatlas.data.transforms.targets import NO_SEGMENT, size_of_target, visible
from segatlas.errors import UsageError
from segatlas.structures import InstancesTarget, SegmentsTarget, Target

if TYPE_CHECKING:
    from segatlas.config.transforms import TransformsConfig


@dataclass(frozen=True, kw_only=True)
class CopyPaste:
    """How often objects are pasted, and how many.

    probability: of a sample to get objects of another one. objects: the fraction of that one's objects, each drawn by
    itself.
    """

    probability: float = 0.5
    objects: float = 0.5

    def draw(self, generator: np.random.Generator, count: int) -> int | None:
        """Draw the index of the second sample of `count`, or None where nothing is pasted."""
        pastes = generator.random() < self.probability
        index = int(generator.integers(count))
        return index if pastes else None

    def apply(self, sample: PreparedSample, other: PreparedSample, generator: np.random.Generator) -> PreparedSample:
        """Return the sample with drawn objects of the other one over it, where they are in that one.

        Of crowds and stuff nothing is pasted. Where the two differ in size, the top left corners lie on one another.

        Raises:
            UsageError: their truths have no objects.
        """
        masks, classes = objects_of(other.target)
        drawn = generator.random(len(masks)) < self.objects
        masks, classes = masks[drawn], classes[drawn]
        height, width = size_of_target(sample.target)
        placed = np.zeros((len(masks), height, width), bool)
        rows, columns = min(height, masks.shape[1]), min(width, masks.shape[2])
        placed[:, :rows, :columns] = masks[:, :rows, :columns]
        seen = np.flatnonzero(placed.any(axis=(1, 2)))
        placed, classes = placed[seen], classes[seen]
        if not len(placed):
            return sample
        cover = np.asarray(placed.any(axis=0))
        image = sample.image.copy()
        image[cover] = other.image[:rows, :columns][cover[:rows, :columns]]
        padding = None if sample.padding is None else sample.padding & ~cover
        return replace(sample, image=image, target=pasted(sample.target, placed, classes), padding=padding)


def copy_paste_of(transforms: TransformsConfig) -> CopyPaste | None:
    """Return the pasting of objects that a recipe asks for."""
    return None if transforms.copy_paste is None else CopyPaste(**dict(transforms.copy_paste))


def objects_of(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return masks (M, H, W) bool and classes (M,) of what can be pasted. UsageError where a truth has no objects."""
    if isinstance(target, InstancesTarget):
        kept = ~np.asarray(target.crowd)
        return np.asarray(target.masks)[kept], np.asarray(target.classes)[kept]
    if isinstance(target, SegmentsTarget):
        kept = np.asarray(target.things) & ~np.asarray(target.crowd)
        masks = np.asarray(target.ids) == np.flatnonzero(kept)[:, None, None]
        return masks, np.asarray(target.classes)[kept]
    raise UsageError("transforms.copy_paste: masks of classes have no objects to paste; take it out, or train objects")


def pasted(target: Target, masks: np.ndarray, classes: Sequence[int] | np.ndarray) -> Target:
    """Return a truth with objects over it: masks (M, H, W) bool, classes (M,); what they hide is gone."""
    cover = masks.any(axis=0)
    new = np.asarray(classes, np.int64)
    crowd = np.zeros(len(new), bool)
    if isinstance(target, InstancesTarget):
        below = np.asarray(target.masks) & ~cover
        kept = below.any(axis=(1, 2))
        return InstancesTarget(
            np.concatenate([below[kept], masks]),
            np.concatenate([np.asarray(target.classes)[kept], new]),
            np.concatenate([np.asarray(target.crowd)[kept], crowd]),
            None if target.padding is None else np.asarray(target.padding) & ~cover,
        )
    if isinstance(target, SegmentsTarget):
        ids = np.array(target.ids)
        ids[cover] = NO_SEGMENT
        for row, mask in enumerate(masks, start=len(np.asarray(target.classes))):
            ids[mask] = row
        return visible(
            SegmentsTarget(
                ids,
                np.concatenate([np.asarray(target.classes), new]),
                np.concatenate([np.asarray(target.things), ~crowd]),
                np.concatenate([np.asarray(target.crowd), crowd]),
            )
        )
    raise UsageError("transforms.copy_paste: masks of classes have no objects to paste; take it out, or train objects")
