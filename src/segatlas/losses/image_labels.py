"""Classes of whole images teach a network that gives a map: its activation maps then show where they are."""

from __future__ import annotations

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
    """Which classes an image shows, from the mean of their logits over the image: binary cross-entropy.

    The mean over labelled images and classes, the background left out, as for class activation maps (Zhou et al. 2016,
    https://arxiv.org/abs/1512.04150). The mean of a 1x1 convolution without what follows it is that convolution of the
    mean, so the map of a class is its activation map; `segatlas pseudo` makes masks of it. Where images say nothing of
    their own, a class is present where a labelled pixel has it.
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
        where = valid[:, None].to(part)
        scores = (part * where).sum(dim=(2, 3)) / where.sum(dim=(2, 3)).clamp(min=1)
        weight = part.new_ones(count) if class_weights is None else class_weights.to(part)
        background = background_index(self.background)
        if background is not None:
            weight = weight * (torch.arange(count, device=part.device) != background)
        each = F.binary_cross_entropy_with_logits(scores, present.to(scores), reduction="none")
        of_images = labelled.to(scores)[:, None]
        return quotient((each * weight * of_images).sum(), labelled.sum().to(scores) * weight.sum())


LOSS = ImageLabels
