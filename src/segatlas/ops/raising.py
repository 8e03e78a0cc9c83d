"""The slow, obvious raise of logits to full size: for inspection, for losses that need all values, and for tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segatlas.ops.sampling import make_axis


def raise_logits(
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
            raised = interpolate(logits, size=canvas, mode="bilinear", align_corners=align_corners)
        else:
            raised = interpolate(logits, size=canvas, mode=mode)
        return raised[..., : size[0], : size[1]]
    for dim in (0, 1):
        logits = _resample(logits, dim + 2, size[dim], canvas[dim], crop[dim], align_corners, mode)
    return logits


def _resample(logits: Tensor, dim: int, size: int, canvas: int, crop: int, align_corners: bool, mode: str) -> Tensor:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    axis = make_axis(
        logits.shape[dim],
        size,
        canvas=canvas,
        crop=crop,
        align_corners=align_corners,
        mode=mode,
        dtype=dtype,
        device=logits.device,
    )
    low = logits.index_select(dim, axis.low)
    high = logits.index_select(dim, (axis.low + 1).clamp(max=axis.samples - 1))
    weight = axis.weight.to(logits.dtype).view([-1 if i == dim else 1 for i in range(4)])
    return torch.lerp(low, high, weight.expand_as(low))
