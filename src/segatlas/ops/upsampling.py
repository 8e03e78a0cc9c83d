"""The slow, obvious upsampling of logits to full size: for inspection, losses that need all values, and tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from segatlas.ops.sampling import Axis, make_axis


def upsample_logits(
    logits: Tensor,
    size: tuple[int, int],
    *,
    canvas: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    align_corners: bool = False,
    mode: str = "bilinear",
) -> Tensor:
    """Return logits (N, K, H, W) at full size, differentiable.

    Arguments are those of `ops.class_map`, whose result is this one's argmax. Without a resize after the canvas
    (crop == size) this is torch's `interpolate` and a cut.
    """
    canvas = size if canvas is None else canvas
    if crop is None:
        crop = (min(size[0], canvas[0]), min(size[1], canvas[1]))
    if crop == tuple(size) and crop[0] <= canvas[0] and crop[1] <= canvas[1]:
        if mode == "bilinear":
            upsampled = interpolate(logits, size=canvas, mode="bilinear", align_corners=align_corners)
        else:
            upsampled = interpolate(logits, size=canvas, mode=mode)
        return upsampled[..., : size[0], : size[1]]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    upsampled = logits
    for dim in (0, 1):
        axis = make_axis(
            logits.shape[dim + 2],
            size[dim],
            canvas=canvas[dim],
            crop=crop[dim],
            align_corners=align_corners,
            mode=mode,
            dtype=dtype,
            device=logits.device,
        )
        upsampled = resample(upsampled, dim + 2, axis)
    return upsampled.to(logits.dtype)


def upsample_rows(
    logits: Tensor,
    size: tuple[int, int],
    first: int,
    last: int,
    *,
    canvas: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    align_corners: bool = False,
    mode: str = "bilinear",
) -> Tensor:
    """Return rows first..last - 1 of `upsample_logits(logits, size, canvas=canvas, ...)`: (N, K, last - first, W).

    Only the samples under these rows are read. Half precision is computed in float32.
    """
    canvas = size if canvas is None else canvas
    if crop is None:
        crop = (min(size[0], canvas[0]), min(size[1], canvas[1]))
    dtype = torch.promote_types(logits.dtype, torch.float32)
    axis = make_axis(
        logits.shape[2],
        size[0],
        canvas=canvas[0],
        crop=crop[0],
        align_corners=align_corners,
        mode=mode,
        dtype=dtype,
        device=logits.device,
    )
    rows = resample(logits, 2, axis.part(first, last))
    count = last - first
    return upsample_logits(
        rows,
        (count, size[1]),
        canvas=(count, canvas[1]),
        crop=(count, crop[1]),
        align_corners=align_corners,
        mode=mode,
    )


def resample(values: Tensor, dim: int, axis: Axis) -> Tensor:
    """Interpolate one dimension of (N, K, h, w) values, in the precision of the axis."""
    low = values.index_select(dim, axis.low).to(axis.weight.dtype)
    high = values.index_select(dim, (axis.low + 1).clamp(max=axis.samples - 1)).to(axis.weight.dtype)
    weight = axis.weight.view([-1 if i == dim else 1 for i in range(4)])
    return torch.lerp(low, high, weight.expand_as(low))


def upsample_aligned(values: Tensor, factor: int) -> Tensor:
    """Return values (N, K, h, w) as (N, K, h factor, w factor), sample i at index i * factor + factor // 2.

    Between samples bilinear, beyond the outer ones constant. A sample then stands for the middle of what it covers, in
    whole pixels, as the masks of Tian et al. 2020 (https://arxiv.org/abs/2003.05664) are cut and upsampled.
    """
    if factor == 1:
        return values
    bordered = pad(values, (1, 1, 1, 1), mode="replicate")
    sides = [(length - 1) * factor + 1 for length in bordered.shape[-2:]]
    whole = interpolate(bordered, size=sides, mode="bilinear", align_corners=True)
    first = factor - factor // 2
    return whole[..., first : first + values.shape[-2] * factor, first : first + values.shape[-1] * factor]
