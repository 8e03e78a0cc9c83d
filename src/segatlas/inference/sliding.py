"""Large pictures by overlapping windows, with memory for one row of windows only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.ops import window_starts
from segatlas.weights.card import InferenceMode

DEFAULT_OVERLAP = 1 / 3

Scorer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of `crop` every `stride` pixels, (height, width)."""

    crop: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse windows that would leave pixels uncovered."""
        for crop, stride in zip(self.crop, self.stride, strict=True):
            if not 1 <= stride <= crop:
                raise UsageError(
                    f"windows of {self.crop} every {self.stride} pixels: the step must be 1 up to the size"
                )


def make_windows(window: int | tuple[int, int], overlap: float = DEFAULT_OVERLAP) -> Windows:
    """Return windows of N x N or (h, w) pixels of which neighbours share `overlap` (0 up to, not including, 1).

    Raises:
        UsageError: a side below 1, or an overlap out of range.
    """
    crop = (window, window) if isinstance(window, int) else (int(window[0]), int(window[1]))
    if min(crop) < 1:
        raise UsageError(f"window: got {window}, expected at least 1 pixel a side")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: got {overlap}, expected 0 up to, but not including, 1")
    return Windows(crop=crop, stride=(_step(crop[0], overlap), _step(crop[1], overlap)))


def card_windows(mode: InferenceMode) -> Windows | None:
    """Return the windows that a card asks for, None for whole pictures."""
    if mode.mode == "whole" or mode.crop is None:
        return None
    return Windows(crop=mode.crop, stride=mode.stride) if mode.stride else make_windows(mode.crop)


def slide(images: Tensor, windows: Windows, score: Scorer) -> Tensor:
    """Return the mean of the windows' logits at every pixel of the batch.

    Args:
        images: (N, C, H, W).
        windows: size and step; the last window of a row or column is moved back to end at the edge.
        score: maps a window (N, C, h, w) to logits (N, K, h, w).

    Returns:
        (N, K, H, W) float32.
    """
    return torch.cat(list(_finished_rows(images, windows, score)), dim=2)


def slide_class_map(
    images: Tensor, windows: Windows, score: Scorer, confidence: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the class of every pixel by windows, never holding more logits than one row of windows.

    Args:
        images: (N, C, H, W).
        windows: as in `slide`.
        score: as in `slide`.
        confidence: also return the probability of the chosen class.

    Returns:
        (N, H, W) uint8 (int32 above 255 classes) and (N, H, W) float32 or None.
    """
    maps, sure = [], []
    for logits in _finished_rows(images, windows, score):
        top = logits.max(dim=1)
        maps.append(top.indices.to(torch.uint8 if logits.shape[1] <= 255 else torch.int32))
        if confidence:
            sure.append((top.values - logits.logsumexp(dim=1)).exp())
    return torch.cat(maps, dim=1), torch.cat(sure, dim=1) if confidence else None


def _step(side: int, overlap: float) -> int:
    return max(1, round(side * (1 - overlap)))


def _finished_rows(images: Tensor, windows: Windows, score: Scorer) -> Iterator[Tensor]:
    """Yield mean logits (N, K, rows, W) from the top down, each band as soon as no further window reaches it."""
    height, width = images.shape[-2:]
    high, wide = min(windows.crop[0], height), min(windows.crop[1], width)
    tops = window_starts(height, windows.crop[0], windows.stride[0])
    lefts = window_starts(width, windows.crop[1], windows.stride[1])
    hits = torch.zeros(high, width, device=images.device)
    total: Tensor | None = None
    for top, end in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            logits = score(images[..., top : top + high, left : left + wide]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], high, width)
            total[..., left : left + wide] += logits
            hits[:, left : left + wide] += 1
        assert total is not None
        done = end - top
        yield total[:, :, :done] / hits[:done]
        total, hits = F.pad(total[:, :, done:], (0, 0, 0, done)), F.pad(hits[done:], (0, 0, 0, done))
