"""Teach a head where labels change: the detail loss of STDC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, mean_over_classes, precise
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Generator, Tensor

SCALES = (1, 2, 4)
MIX_WEIGHTS = (0.6, 0.3, 0.1)
THRESHOLD = 0.1
SMALL = 1e-3
"""Added to each sum below `_squared_dice`."""


class Detail(Loss):
    """Borders between labels, for the detail head of STDC: binary cross-entropy plus Dice.

    Fan et al. 2021, https://arxiv.org/abs/2104.13188, section 3.3. The logits are (N, 1, h, w), border; or
    (N, 2, h, w), no border and border, each against its own yes or no.
    """

    takes: ClassVar = "a map of 1 or 2 channels that draws borders, such as aux.detail"
    weighted: ClassVar = False

    name: Literal["detail"] = "detail"
    on: str = Field("aux.detail", pattern=r"^aux\.\w+$", description="the head that draws borders")
    ignored_as_class: bool = Field(
        False, description="ignored pixels are a class, 255, with borders of its own, and count, as in published code"
    )
    squared_dice: bool = Field(
        False, description="Dice over all channels at once, with squares in its divisor, as in MMSegmentation"
    )

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        import torch
        from torch.nn import functional as F

        from segatlas.ops import upsample_logits

        size = (labels.shape[-2], labels.shape[-1])
        upsampled = upsample_logits(precise(logits), size, canvas=canvas, align_corners=align_corners)
        border = detail_map(labels, ignored_as_class=self.ignored_as_class).to(upsampled)  # (N, H, W)
        target = torch.stack([1 - border, border], dim=1)[:, -upsampled.shape[1] :]
        labelled = torch.ones_like(border) if self.ignored_as_class else (labels != IGNORE).to(upsampled)
        count = labelled.sum().clamp(min=1) * upsampled.shape[1]
        each = F.binary_cross_entropy_with_logits(upsampled, target, reduction="none")
        cross_entropy = (each * labelled.unsqueeze(1)).sum() / count
        if self.squared_dice:
            dice = _squared_dice(upsampled.sigmoid() * labelled.unsqueeze(1), target * labelled.unsqueeze(1))
            return cross_entropy + mean_over_classes(dice, labelled.amax((1, 2)), None)
        probability = upsampled[:, -1].sigmoid() * labelled
        border = border * labelled
        overlap = 2 * (probability * border).sum((1, 2)) + 1
        dice = 1 - overlap / (probability.sum((1, 2)) + border.sum((1, 2)) + 1)
        return cross_entropy + mean_over_classes(dice, labelled.amax((1, 2)), None)

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of one or two channels."""
        return super().fits(logits) and logits.shape[1] in (1, 2)

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        logits: Tensor = super().example(labels, 2, draw)
        return logits


def _squared_dice(probability: Tensor, target: Tensor) -> Tensor:
    """Return (N,): 1 - 2 sum(p t) / (sum(p p) + sum(t t)) over all channels and pixels of maps (N, C, H, W)."""
    dims = (1, 2, 3)
    below = (probability * probability).sum(dims) + (target * target).sum(dims) + 2 * SMALL
    return 1 - 2 * (probability * target).sum(dims) / below


def detail_map(labels: Tensor, *, ignored_as_class: bool = False) -> Tensor:
    """Return where labels change, (N, H, W) bool: on the side of the larger label, wider where the change is coarse.

    A Laplacian of the labels at strides 1, 2 and 4, each cut to yes or no, upsampled by the nearest value and mixed by
    fixed weights; the mix is cut again. Ignored pixels change nothing: as neighbours they count as equal, as centres
    as no border, and they are no border themselves.

    Args:
        labels: (N, H, W) integer, 0..K-1 or 255.
        ignored_as_class: read them as a class 255 instead, as the published code does.
    """
    import torch
    from torch.nn import functional as F

    labelled = ((labels != IGNORE) | ignored_as_class).unsqueeze(1)
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


LOSS = Detail
