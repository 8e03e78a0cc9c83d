"""How images are cut out of a volume of numbers, such as a CT scan: a fact of a dataset, kept in the card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VolumeSlices:
    """Slices of a volume as images.

    window: the stored values that become 0 and 1; what lies beyond is cut to these. Of CT they are Hounsfield units.
    axis: the axis of the stored array that is cut, 0..2. Of the other two the first is the image's columns, the second
        its rows, both in the order in which the voxels are stored, whichever way the file says that they lie in space.
    """

    window: tuple[float, float] = (-250.0, 250.0)
    axis: int = 2
