"""What the losses ask of full-size labels (N, H, W): 0..K-1, or `ignore_index` where a pixel has none."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.ops.steps import step_elements

PIECE = 1 << 16
"""Values looked at in one go on the CPU."""


def pieces(values: Tensor) -> Iterator[Tensor]:
    """Yield the values in small flat parts on the CPU, where large temporary results cost most, else all at once."""
    flat = values.reshape(-1)
    yield from flat.split(step_elements(PIECE) if flat.device.type == "cpu" else max(1, len(flat)))


def count_labels(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return how many pixels each class has, (K,) int64."""
    counts = torch.zeros(num_classes, dtype=torch.int64, device=labels.device)
    for piece in pieces(labels):
        counts += torch.bincount(piece[piece != ignore_index].int(), minlength=num_classes)
    return counts


def fraction_of_all(
    kept: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, without: int | None = None
) -> Tensor:
    """Return the weight of the pixels that have a label in `kept` over that of all pixels, a float64 scalar.

    Args:
        kept: (N, H, W).
        labels: (N, H, W); a pixel without label weighs 1.
        weight: (K,) weight of each class, None = 1.
        ignore_index: stands in `labels` where a pixel has none.
        without: the same in `kept`; default ignore_index.
    """
    without = ignore_index if without is None else without
    if weight is None:
        return torch.count_nonzero(kept != without).double() / max(labels.numel(), 1)
    classes = weight.to(labels.device).double()
    known = (count_labels(labels, len(weight), ignore_index) * classes).sum()
    above = known if kept is labels else (count_labels(kept, len(weight), without) * classes).sum()
    below = known + torch.count_nonzero(labels == ignore_index)
    return above / below.where(below > 0, below.new_ones(()))


def check_labels(logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None, ignore_index: int) -> None:
    """Refuse, with UsageError, labels that do not belong to logits (N, K, h, w) on a canvas."""
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise UsageError(
            f"expected (N, K, h, w) logits and (N, H, W) labels, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if canvas is not None and (canvas[0] < labels.shape[1] or canvas[1] < labels.shape[2]):
        raise UsageError(f"labels {tuple(labels.shape[1:])} do not fit on the canvas {tuple(canvas)}")
    if labels.device.type == "cpu":  # elsewhere the look would cost a wait; gather checks there
        for piece in pieces(labels):
            if len(piece):
                _check_range(piece, logits.shape[1], ignore_index)


def _check_range(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    lowest, highest = map(int, labels.aminmax())
    if lowest >= 0 and highest < num_classes:
        return
    outside = sum(
        int(torch.count_nonzero(wrong))
        for wrong in ([labels < 0] if lowest < 0 else []) + ([labels >= num_classes] if highest >= num_classes else [])
    )
    if 0 <= ignore_index < num_classes or outside != int(torch.count_nonzero(labels == ignore_index)):
        known = labels[labels != ignore_index]
        wrong = int(known.max()) if int(known.max()) >= num_classes else int(known.min())
        raise UsageError(f"label {wrong} in a loss over {num_classes} classes (0..{num_classes - 1})")


def size_of(labels: Tensor) -> tuple[int, int]:
    """Return (H, W) of labels (N, H, W)."""
    return labels.shape[1], labels.shape[2]
