"""Confusion counts of a pair of label maps, by run lengths: real maps change far less often than they have pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segatlas.errors import UsageError

NOISY = 4
"""One change of value in this many pixels or fewer: runs no longer pay, every pixel is counted."""


def confusion(prediction: Any, label: Any, num_classes: int, ignore: int = 255) -> Tensor:
    """Count (truth, prediction) pairs.

    Args:
        prediction: integers 0..K-1 of any shape, an array or tensor; any value where the label is `ignore`.
        label: integers 0..K-1 or `ignore`, of the same shape.
        num_classes: K, at most 255.
        ignore: label value that is not counted.

    Returns:
        (K, K) int64 on the prediction's device: rows truth, columns prediction.

    Raises:
        UsageError: shapes differ, or a counted value names no class.
    """
    if tuple(prediction.shape) != tuple(label.shape):
        raise UsageError(f"prediction {tuple(prediction.shape)} and label {tuple(label.shape)} differ in shape")
    if isinstance(prediction, Tensor) and prediction.device.type != "cpu":
        return _on_device(prediction, torch.as_tensor(label, device=prediction.device), num_classes, ignore)
    truth, guess = _flat_bytes(label), _flat_bytes(prediction)
    pairs = truth.astype(np.uint16)
    pairs <<= 8
    pairs |= guess
    counts = _count(pairs).reshape(256, 256)
    counts[ignore] = 0
    _require_classes(counts, num_classes)
    return torch.from_numpy(np.ascontiguousarray(counts[:num_classes, :num_classes]))


def _flat_bytes(values: Any) -> np.ndarray:
    """Return the values as flat uint8; what lies outside 0..255 becomes 255, which no class is."""
    array = (values.numpy() if isinstance(values, Tensor) else np.asarray(values)).reshape(-1)
    if array.dtype == np.uint8:
        return array
    return np.where((array < 0) | (array > 255), 255, array).astype(np.uint8)


def _count(pairs: np.ndarray) -> np.ndarray:
    """Return how often each of the 65536 codes occurs, (65536,) int64."""
    if pairs.size == 0:
        return np.zeros(65536, np.int64)
    changes = np.flatnonzero(pairs[1:] != pairs[:-1]) + 1
    if changes.size * NOISY > pairs.size:
        return np.bincount(pairs, minlength=65536)
    starts = np.concatenate(([0], changes))
    lengths = np.diff(np.concatenate((starts, [pairs.size])))
    # weights are summed in float64, exact for counts below 2**53
    return np.bincount(pairs[starts], weights=lengths, minlength=65536).astype(np.int64)


def _require_classes(counts: np.ndarray, num_classes: int) -> None:
    for what, totals in (("label", counts.sum(1)), ("prediction", counts.sum(0))):
        beyond = np.flatnonzero(totals[num_classes:])
        if beyond.size:
            raise UsageError(f"{what} holds {num_classes + int(beyond[0])}, expected 0..{num_classes - 1}")


def _on_device(prediction: Tensor, label: Tensor, num_classes: int, ignore: int) -> Tensor:
    kept = label != ignore
    truth, guess = label[kept].long(), prediction[kept].long()
    for what, values in (("label", truth), ("prediction", guess)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise UsageError(f"{what} holds {int(values.max())}, expected 0..{num_classes - 1}")
    return torch.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)
