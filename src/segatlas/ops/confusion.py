"""The confusion matrix of two label maps, counted by hotcoco's compiled loop or by runs, whichever is quicker.

hotcoco (MIT) looks at every pixel. Large maps of bytes are mostly runs of the same pair (truth, prediction): one pass
finds where the pair changes, and only the runs are counted, each with its length. Wider integers that fit are made
bytes first. Without hotcoco (a platform that it has no wheel for) NumPy counts what has no runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.structures import IGNORE

RUNS_FRACTION = 0.25
"""Fraction of changes from which counting every pixel is quicker."""

FEW_CHANGES = 0.015
"""The same where hotcoco would count every pixel."""

SMALL, LARGE = 1 << 14, 1 << 19
"""Pixels below which hotcoco counts maps as they are, and from which looking for runs may pay."""

STRETCH, SAMPLED = 1 << 10, 64
"""Pixels looked at together, and one stretch in how many, to tell whether there are runs."""

PIECE = 1 << 17
"""Pixels looked at in one go: memory that stays mapped is several times quicker than new memory."""

INT64 = np.dtype(np.int64)

Labels = np.ndarray | Tensor


def confusion(prediction: Labels, label: Labels, num_classes: int, ignore: int = IGNORE) -> Labels:
    """Count pixels by true and predicted class.

    Args:
        prediction: any shape, integers 0..K-1; not looked at where label is `ignore`.
        label: same shape, integers 0..K-1 or ignore.
        num_classes: K.
        ignore: label of pixels that are not counted.

    Returns:
        (K, K) int64, rows = truth, columns = prediction; an array for arrays, a tensor on the same device for tensors.

    Raises:
        UsageError: shapes differ, values are no integers, or a value is out of range at a labelled pixel.
    """
    if type(prediction) is type(label) is np.ndarray:
        if label.size < SMALL and (compiled := _compiled()) and "b" not in label.dtype.kind + prediction.dtype.kind:
            # No more around the compiled loop than this: a small map takes it 2 microseconds. It refuses what we do.
            try:
                small: np.ndarray = compiled(label, prediction, num_classes, ignore_index=ignore).view(INT64)
            except (ValueError, TypeError, OverflowError):
                pass  # told below
            else:
                return small
        same = label.dtype == prediction.dtype and label.dtype.itemsize in (1, 8) and num_classes <= 256
        if same and SMALL <= label.size < LARGE and prediction.shape == label.shape:
            counts = _count_compiled(prediction, label, num_classes, ignore)
            if counts is not None:
                return counts
    if tuple(prediction.shape) != tuple(label.shape):
        raise UsageError(f"prediction {tuple(prediction.shape)} and label {tuple(label.shape)} differ in shape")
    if isinstance(prediction, Tensor) and isinstance(label, Tensor):
        if prediction.device.type == "cpu" and label.device.type == "cpu":
            return torch.from_numpy(_count(prediction.detach().numpy(), label.detach().numpy(), num_classes, ignore))
        return _count_on_device(prediction, label.to(prediction.device), num_classes, ignore)
    return _count(np.asarray(prediction), np.asarray(label), num_classes, ignore)


def _count(prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore: int) -> np.ndarray:
    for name, values in (("prediction", prediction), ("label", label)):
        if values.dtype.kind not in "iu":
            raise UsageError(f"{name} must hold integers, got {values.dtype}")
    narrow = max(prediction.dtype.itemsize, label.dtype.itemsize) < 8
    if num_classes <= 256 and (narrow or _compiled() is None) and _fits_bytes(label) and _fits_bytes(prediction):
        guess, truth = (values.astype(np.uint8, copy=False).ravel() for values in (prediction, label))
        if _compiled() is None or (label.size >= LARGE and _has_runs(truth, guess)):
            return _count_bytes(guess, truth, num_classes, ignore)
        prediction, label = guess, truth
    counts = _count_compiled(prediction, label, num_classes, ignore) if num_classes <= 256 else None
    return _count_pairs(prediction.ravel(), label.ravel(), num_classes, ignore) if counts is None else counts


def _count_pairs(prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore: int) -> np.ndarray:
    """Count by a number for each pair, made and looked at piece by piece; values that no uint8 holds."""
    numbers, spare = np.empty(label.size, np.int64), num_classes * num_classes
    for first in range(0, label.size, PIECE):
        truth, guess = label[first : first + PIECE], prediction[first : first + PIECE]
        ignored = truth == ignore
        some = bool(ignored.any())
        if some:
            truth, guess = np.where(ignored, 0, truth), np.where(ignored, 0, guess)
        for name, values in (("prediction", guess), ("label", truth)):
            lowest, highest = int(values.min()), int(values.max())
            if lowest < 0 or highest >= num_classes:
                raise _out_of_range(name, lowest if lowest < 0 else highest, num_classes)
        pairs = numbers[first : first + PIECE]
        np.multiply(truth, num_classes, out=pairs, casting="unsafe", dtype=np.int64)
        np.add(pairs, guess, out=pairs, casting="unsafe", dtype=np.int64)
        if some:
            pairs[ignored] = spare
    table: np.ndarray = np.bincount(numbers, minlength=spare + 1)[:spare]
    return table.reshape(num_classes, num_classes).astype(np.int64, copy=False)


def _has_runs(label: np.ndarray, prediction: np.ndarray) -> bool:
    """Tell by one stretch in SAMPLED whether the pair changes so seldom that counting runs is quicker."""
    length = STRETCH * SAMPLED
    parts = [
        values[: values.size // length * length].reshape(-1, length)[:, :STRETCH] for values in (label, prediction)
    ]
    change = np.not_equal(parts[0][:, 1:], parts[0][:, :-1])
    change |= parts[1][:, 1:] != parts[1][:, :-1]
    return np.count_nonzero(change) <= FEW_CHANGES * change.size


@cache
def _compiled() -> Callable[..., Any] | None:
    """Return hotcoco's count of (truth, prediction, K, ignore_index=); None where it is not installed."""
    try:
        from hotcoco.metrics import pixel_confusion  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    counts: Callable[..., Any] = pixel_confusion
    return counts


def _count_compiled(prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore: int) -> np.ndarray | None:
    """Return hotcoco's counts; None without it, or where it refuses a value: NumPy's way then says which."""
    compiled = _compiled()
    if compiled is None or ignore < 0 or prediction.dtype.kind not in "iu" or label.dtype.kind not in "iu":
        return None
    try:
        counts: np.ndarray = compiled(label, prediction, num_classes, ignore_index=ignore).view(np.int64)
    except (ValueError, TypeError, OverflowError):
        return None
    return counts


def _fits_bytes(values: np.ndarray) -> bool:
    """Tell whether all values are 0..255."""
    return values.dtype == np.uint8 or (values.size > 0 and values.min() >= 0 and values.max() <= 255)


def _count_bytes(prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore: int) -> np.ndarray:
    starts = _starts_of_runs(label, prediction)
    counts = np.zeros(1 << 16)  # float64: exact up to 2**53 pixels
    if starts is None:
        for first in range(0, label.size, PIECE):
            pairs = _pairs(label[first : first + PIECE], prediction[first : first + PIECE])
            counts += np.bincount(pairs, minlength=1 << 16)
    else:
        lengths = np.diff(starts, append=label.size)
        counts += np.bincount(_pairs(label[starts], prediction[starts]), weights=lengths, minlength=1 << 16)
    table = counts.astype(np.int64).reshape(256, 256)
    if 0 <= ignore < 256:
        table[ignore] = 0
    if table[num_classes:].any():
        raise _out_of_range("label", int(np.flatnonzero(table.any(1)).max()), num_classes)
    if table[:, num_classes:].any():
        raise _out_of_range("prediction", int(np.flatnonzero(table.any(0)).max()), num_classes)
    return table[:num_classes, :num_classes].copy()


def _starts_of_runs(label: np.ndarray, prediction: np.ndarray) -> np.ndarray | None:
    """Return where the pair changes, the first pixel included; None where that is at too many pixels."""
    change, other = np.empty(PIECE, np.bool_), np.empty(PIECE, np.bool_)
    found, count = [np.zeros(min(label.size, 1), np.int64)], 0
    for first in range(1, label.size, PIECE):
        last = min(first + PIECE, label.size)
        here, there = change[: last - first], other[: last - first]
        np.not_equal(label[first:last], label[first - 1 : last - 1], out=here)
        np.not_equal(prediction[first:last], prediction[first - 1 : last - 1], out=there)
        here |= there
        found.append(np.flatnonzero(here) + first)
        count += len(found[-1])
        if count > RUNS_FRACTION * label.size:
            return None
    return np.concatenate(found)


def _pairs(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return one uint16 number for each pair of bytes, the label in its upper half."""
    pairs = label.astype(np.uint16)
    pairs <<= 8
    pairs |= prediction
    return pairs


def _count_on_device(prediction: Tensor, label: Tensor, num_classes: int, ignore: int) -> Tensor:
    for name, values in (("prediction", prediction), ("label", label)):
        if values.is_floating_point():
            raise UsageError(f"{name} must hold integers, got {values.dtype}")
    labelled = label != ignore
    truth, guess = label[labelled].long(), prediction[labelled].long()
    for name, values in (("prediction", guess), ("label", truth)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise _out_of_range(name, int(values.max()), num_classes)
    return torch.bincount(truth * num_classes + guess, minlength=num_classes**2).view(num_classes, num_classes)


def _out_of_range(name: str, value: int, num_classes: int) -> UsageError:
    return UsageError(f"{name} holds {value}; expected 0..{num_classes - 1} for {num_classes} classes")
