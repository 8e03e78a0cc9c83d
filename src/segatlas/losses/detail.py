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


class Detail(Loss):
    """Borders between labels, for the detail head of STDC: binary cross-entropy plus Dice.

    Fan et al. 2021, https://arxiv.org/abs/2104.13188, section 3.3. The logits are (N, 1, h, w), border; or
    (N, 2, h, w), no border and border, each against its own yes or no.
    """

    takes: ClassVar = "a map of 1 or 2 channels that draws borders, such as aux.detail"
    weighted: ClassVar = False

    name: Literal["detail"] = "detail"
    on: str = Field("aux.detail", pattern=r"^aux\.\w+$", description="the head that draws borders")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        import torch
        from torch.nn import functional as F

        from segatlas.ops import upsample_logits

        size = (labels.shape[-2], labels.shape[-1])
        upsampled = upsample_logits(precise(logits), size, canvas=canvas, align_corners=align_corners)
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

    def fits(self, logits: Any) -> bool:
        """Tell whether this is a map of one or two channels."""
        return super().fits(logits) and logits.shape[1] in (1, 2)

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Tensor:
        """See `Loss`."""
        logits: Tensor = super().example(labels, 2, draw)
        return logits


def detail_map(labels: Tensor) -> Tensor:
    """Return where labels change, (N, H, W) bool: on the side of the larger label, wider where the change is coarse.

    A Laplacian of the labels at strides 1, 2 and 4, each cut to yes or no, upsampled by the nearest value and mixed by
    fixed weights; the mix is cut again. Ignored pixels change nothing: as neighbours they count as equal, as centres
    as no border, and they are no border themselves. (The published code reads them as a class 255 instead.)

    Args:
        labels: (N, H, W) integer, 0..K-1 or 255.
    """
    import torch
    from torch.nn import functional as F

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


LOSS = Detail
