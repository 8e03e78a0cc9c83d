"""Classes of whole images teach a network that gives a map: its activation maps then show where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from segatlas.losses.around import LossAround, pooled_image
from segatlas.losses.background import BackgroundClass, background_index, settled_background
from segatlas.losses.class_presence import class_presence
from segatlas.losses.loss import Canvas, precise, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class ImageLabels(LossAround):
    """Which classes an image shows, from their logits over the image: binary cross-entropy.

    The mean over labelled images and classes, the background left out, as for class activation maps (Zhou et al. 2016,
    https://arxiv.org/abs/1512.04150). The mean of a 1x1 convolution without what follows it is that convolution of the
    mean, so the map of a class is its activation map; `segatlas pseudo` makes masks of it. An object that covers
    little of the image hardly moves a mean: `smooth_max` takes log-mean-exp in its place, between mean and
    largest value (Pinheiro and Collobert 2015, https://arxiv.org/abs/1411.6228). Where images say nothing of their own,
    a class is present where a labelled pixel has it.
    """

    takes: ClassVar = "a map of logits (N, K, h, w) with the classes of the images"
    weighted: ClassVar = True
    heeds: ClassVar = "present"

    name: Literal["image_labels"] = "image_labels"
    background: BackgroundClass | None = Field(
        "named",
        description="the class of everything else, of which nothing is learned; named: the one that is called "
        "background, ground, other or the like, if any; null: there is none",
    )

    pooling: Literal["mean", "smooth_max"] = Field("mean", description="how the logits of an image become one")
    sharpness: float = Field(5.0, gt=0, le=100, description="smooth_max: large = the largest logit, small = the mean")

    def for_classes(self, names: Sequence[str], background: int | None) -> Self:
        """See `Loss`."""
        settled = settled_background(self.name, self.background, names, background)
        return self.model_copy(update={"background": settled})

    def value(
        self, logits: Any, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`; `align_corners` plays no part."""
        import torch
        from torch.nn import functional as F

        part, around = precise(logits.part), logits.around
        count = part.shape[1]
        labelled = (labels != IGNORE).flatten(1).any(dim=1)
        if around.present is None:
            present = class_presence(labels, count)
        else:
            present, labelled = around.present.bool(), torch.ones_like(labelled)
        _, valid = pooled_image(around.image.to(part), around.valid, canvas, (part.shape[-2], part.shape[-1]))
        scores = self._pooled(part, valid[:, None])
        weight = part.new_ones(count) if class_weights is None else class_weights.to(part)
        background = background_index(self.background)
        if background is not None:
            weight = weight * (torch.arange(count, device=part.device) != background)
        each = F.binary_cross_entropy_with_logits(scores, present.to(scores), reduction="none")
        of_images = labelled.to(scores)[:, None]
        return quotient((each * weight * of_images).sum(), labelled.sum().to(scores) * weight.sum())

    def _pooled(self, part: Tensor, valid: Tensor) -> Tensor:
        """Return one logit (N, K) of each image and class, from those (N, K, h, w) of valid pixels (N, 1, h, w)."""
        count = valid.sum(dim=(2, 3)).clamp(min=1)
        if self.pooling == "mean":
            return (part * valid).sum(dim=(2, 3)) / count
        shown = (self.sharpness * part).masked_fill(~valid & valid.any(dim=(2, 3), keepdim=True), -math.inf)
        return (shown.logsumexp(dim=(2, 3)) - count.to(part).log()) / self.sharpness


LOSS = ImageLabels
