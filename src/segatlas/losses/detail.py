"""Teach a head where labels change: the detail loss of STDC."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses.base import Loss, mean_over_classes
from segatlas.ops import upsample_logits
from segatlas.structures import IGNORE

SCALES = (1, 2, 4)
MIX_WEIGHTS = (0.6, 0.3, 0.1)
THRESHOLD = 0.1


class Detail(Loss):
    """Binary cross-entropy plus Dice against the borders between labels (Fan et al. 2021, section 3.3).

    The logits are (N, 1, h, w), border; or (N, 2, h, w), no border and border, each against its own yes or no.
    See https://arxiv.org/abs/2104.13188.
    """

    def __init__(self, *, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        if class_weights is not None:
            raise UsageError("loss detail: class_weights has no meaning, borders are no classes")

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`; logits have one or two channels."""
        if logits.shape[1] not in (1, 2):
            raise UsageError(
                f"loss detail: its head has {logits.shape[1]} channels, expected 1 or 2; is it on aux.detail?"
            )
        size = (labels.shape[-2], labels.shape[-1])
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        upsampled = upsample_logits(precise, size, canvas=canvas, align_corners=align_corners)
        border = detail_map(labels).to(upsampled)  # (N, H, W)
        target = torch.stack([1 - border, border], dim=1)[:, -upsampled.shape[1] :]
        labelled = (labels != IGNORE).to(upsampled)
        count = labelled.sum().clamp(min=1) * upsampled.shape[1]
        each = F.binary_cross_entropy_with_logits(upsampled, target, reduction="none")
        cross_entropy = (each * labelled.unsqueeze(1)).sum() / count
        probability = upsampled[:, -1].sigmoid() * labelled
        border = border * labelled
        overlap = 2 * (probability * border).sum((1, 2)) + 1
        dice = 1 - overlap / (probability.sum((1, 2)) + border.sum((1, 2)) + 1)
        return cross_entropy + mean_over_classes(dice, labelled.amax((1, 2)), None)


def detail_map(labels: Tensor) -> Tensor:
    """Return where labels change, (N, H, W) bool: on the side of the larger label, wider where the change is coarse.

    A Laplacian of the labels at strides 1, 2 and 4, each cut to yes or no, upsampled by the nearest value and mixed by
    fixed weights; the mix is cut again. Ignored pixels change nothing: as neighbours they count as equal, as centres
    as no border, and they are no border themselves. (The published code reads them as a class 255 instead.)

    Args:
        labels: (N, H, W) integer, 0..K-1 or 255.
    """
    labelled = (labels != IGNORE).unsqueeze(1)
    values = labels.unsqueeze(1).float().masked_fill(~labelled, 0)
    counted = F.pad(labelled.to(values), (1, 1, 1, 1), value=1.0)  # beyond the edge lies class 0, as published
    kernel = values.new_ones(1, 1, 3, 3)
    mix = torch.zeros_like(values)
    for scale, weight in zip(SCALES, MIX_WEIGHTS, strict=True):
        # sum over labelled neighbours of (centre - neighbour)
        own = values[..., ::scale, ::scale] * F.conv2d(counted, kernel, stride=scale)
        difference = own - F.conv2d(values, kernel, stride=scale, padding=1)
        change = ((difference > THRESHOLD) & labelled[..., ::scale, ::scale]).to(values)
        mix += weight * F.interpolate(change, size=values.shape[-2:], mode="nearest")
    # A change seen at stride 4 alone, weight 0.1, does not count: as published.
    return ((mix > THRESHOLD + 1e-6) & labelled).squeeze(1)
