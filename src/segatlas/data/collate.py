"""Put prepared samples together to a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from segatlas.data.transforms import PreparedSample
from segatlas.structures import IGNORE, Batch


def collate(samples: Sequence[PreparedSample]) -> Batch:
    """Return one batch; samples of different sizes are padded right and bottom to the largest.

    Args:
        samples: at least one; all with the same channels and the same sources.

    Returns:
        images (N, C, H, W) float32, channels last in memory, padded with 0; labels (N, H', W') uint8, padded with 255
        (H', W' differ from H, W only in evaluation with a resize); sources of image kind as float32 (N, C, H, W) in
        stored values, of label kind as (N, H, W).
    """
    sources: dict[str, Tensor] = {}
    for name, first in samples[0].sources.items():
        arrays = [sample.sources[name].array for sample in samples]
        sources[name] = _labels(arrays) if first.kind == "label" else _images(arrays)
    return Batch(
        images=_images([sample.image for sample in samples]),
        labels=_labels([sample.label for sample in samples]),
        keys=[sample.key for sample in samples],
        sources=sources,
    )


def _images(arrays: list[np.ndarray]) -> Tensor:
    """Stack (H, W, C) arrays to (N, C, H, W) float32: written pixel by pixel, read as channels-last."""
    return _stack(arrays, torch.float32, 0).permute(0, 3, 1, 2)


def _labels(arrays: list[np.ndarray]) -> Tensor:
    return _stack(arrays, torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype, IGNORE)


def _stack(arrays: list[np.ndarray], dtype: torch.dtype, padding: int) -> Tensor:
    height, width = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    batch = _new_tensor((len(arrays), height, width, *arrays[0].shape[2:]), dtype)
    out = batch.numpy()
    if any(array.shape[:2] != (height, width) for array in arrays):
        out.fill(padding)
    for place, array in zip(out, arrays, strict=True):
        place[: array.shape[0], : array.shape[1]] = array
    return batch


def _new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor to be filled; in a loader process, in shared memory, so that handing it over copies nothing."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
