"""Upsampling of logits inside a network, where the published one upsamples to another size than the image's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def upsample_inside(logits: Tensor, factor: int, stride: int) -> Tensor:
    """Upsample logits (N, K, h, w) by a factor, holding the corners; down again to stride 1 where that is finer.

    So segmentation-models-pytorch does at depths that its factors are not made for.

    Args:
        logits: at `stride`.
        factor: 1 = none.
        stride: pixels of the image for each of the logits, in height and width.

    Returns:
        (N, K, h s, w s), s = min(factor, stride).
    """
    if factor > 1:
        logits = F.interpolate(logits, scale_factor=float(factor), mode="bilinear", align_corners=True)
    if factor > stride:
        logits = F.interpolate(logits, scale_factor=stride / factor, mode="bilinear", align_corners=False)
    return logits
