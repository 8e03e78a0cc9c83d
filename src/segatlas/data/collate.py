"""Put prepared samples together to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from segatlas.data.transforms import PreparedSample
from segatlas.data.transforms.targets import NO_SEGMENT, size_of_target
from segatlas.ops.torch_private import empty_in_shared_memory
from segatlas.structures import IGNORE, Batch, Inputs, InstancesTarget, SegmentsTarget, SemanticTarget, Target
from segatlas.structures.targets import Array


def collate(samples: Sequence[PreparedSample]) -> Batch:
    """Return one batch; samples of different sizes are padded right and bottom to the largest.

    Images are padded with 0 and truths with "ignore". Truths may be larger than images: those of evaluation with a
    resize keep their stored size.

    Args:
        samples: at least one; all with the same channels, the same sources and one type of truth.
    """
    first = samples[0]
    sources: dict[str, Tensor] = {}
    for name, array in first.sources.items():
        arrays = [sample.sources[name] for sample in samples]
        sources[name] = _labels(arrays) if array.ndim == 2 else _images(arrays)
    present = {name: torch.tensor([sample.present[name] for sample in samples]) for name in first.present}
    return Batch(
        inputs=Inputs(_images([sample.image for sample in samples]), sources, present),
        targets=_targets([sample.target for sample in samples]),
        sizes=tuple((sample.image.shape[0], sample.image.shape[1]) for sample in samples),
        keys=tuple(sample.key for sample in samples),
        padding=_padding(samples),
        **_said_of_classes([sample.target for sample in samples]),
    )


def _padding(samples: Sequence[PreparedSample]) -> Tensor | None:
    """Return what `Batch.padding` says: what lies beyond each image in its sample, and beyond its sample."""
    sizes = {sample.image.shape[:2] for sample in samples}
    if len(sizes) == 1 and all(sample.padding is None for sample in samples):
        return None
    own = [np.zeros(one.image.shape[:2], bool) if one.padding is None else one.padding for one in samples]
    return _stack(own, torch.bool, 1)


def _said_of_classes(targets: list[Target]) -> dict[str, Tensor]:
    """Return `Batch.annotated` and `Batch.present` where a sample says such of its classes."""
    found: dict[str, Tensor] = {}
    semantic = [target for target in targets if isinstance(target, SemanticTarget)]
    for name in ("annotated", "present"):
        rows = [getattr(target, name) for target in semantic]
        count = next((len(row) for row in rows if row is not None), 0)
        if not count:
            continue
        own = [
            np.asarray(row) if row is not None else _default_of(name, target, count)
            for row, target in zip(rows, semantic, strict=True)
        ]
        found[name] = torch.from_numpy(np.stack(own).astype(bool))
    return found


def _default_of(name: str, target: SemanticTarget, count: int) -> np.ndarray:
    """Return what holds of (K,) classes where a truth says nothing: all are annotated, those of its labels present."""
    if name == "annotated":
        return np.ones(count, bool)
    return np.isin(np.arange(count), np.asarray(target.labels))


def _targets(targets: list[Target]) -> Tensor | tuple[Target, ...]:
    """Return what `Batch.targets` says: labels as one tensor, targets of other types padded to one size."""
    if isinstance(targets[0], SemanticTarget):
        return _labels([np.asarray(target.labels) for target in targets if isinstance(target, SemanticTarget)])
    sizes = [size_of_target(target) for target in targets]
    size = (max(height for height, _ in sizes), max(width for _, width in sizes))
    return tuple(_padded(target, size) for target in targets)


def _padded(target: Target, size: tuple[int, int]) -> Target:
    """Return a truth as tensors, its maps padded right and bottom."""

    def grown(maps: Array, padding: int) -> Tensor:
        array = np.asarray(maps)
        out = _new_tensor((*array.shape[:-2], *size), _dtype(array))
        out.fill_(padding)
        out.numpy()[..., : array.shape[-2], : array.shape[-1]] = array
        return out

    if isinstance(target, SemanticTarget):
        return target._replace(labels=grown(target.labels, IGNORE))
    if isinstance(target, SegmentsTarget):
        tables = (torch.as_tensor(table) for table in target[1:])
        return SegmentsTarget(grown(target.ids, NO_SEGMENT), *tables)
    masks, beyond = grown(target.masks, 0), target.padding
    if beyond is None and size_of_target(target) != size:
        beyond = np.zeros(size_of_target(target), bool)
    return InstancesTarget(
        masks,
        torch.as_tensor(target.classes),
        torch.as_tensor(target.crowd),
        None if beyond is None else grown(beyond, 1),
    )


def _images(arrays: list[np.ndarray]) -> Tensor:
    """Stack (H, W, C) arrays to (N, C, H, W) float32: written pixel by pixel, read as channels-last."""
    return _stack(arrays, torch.float32, 0).permute(0, 3, 1, 2)


def _labels(arrays: list[np.ndarray]) -> Tensor:
    return _stack(arrays, _dtype(arrays[0]), IGNORE)


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


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
    return empty_in_shared_memory(shape, dtype)
