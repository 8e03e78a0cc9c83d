"""Views of test-time augmentation, undone the slow and obvious way."""

from __future__ import annotations

from torch import Tensor

from segatlas.inference import View


def undo(view: View, maps: Tensor) -> Tensor:
    """Return maps (N, K, H, W) of a view flipped and turned back; their scale is left alone."""
    maps = maps.flip(-1) if view.flip else maps
    return maps.rot90(-view.turns, (-2, -1))


def sees(view: View, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) under which a map of `size` appears in a view."""
    return (size[1], size[0]) if view.turns % 2 else size
