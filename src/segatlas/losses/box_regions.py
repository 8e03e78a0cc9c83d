"""Classes of pixels of which only boxes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from segatlas.errors import UsageError
from segatlas.losses.around import LossAround, map_size, pooled_image
from segatlas.losses.background import BackgroundClass, background_index, settled_background
from segatlas.losses.box_masks import grown
from segatlas.losses.loss import Canvas, precise
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor


class BoxRegions(LossAround):
    """Classes of pixels from boxes: the weighted sum of three parts, after Tian et al. 2021.

    "allowed": -log of the sum of the probabilities of the classes that a pixel may have, a mean over pixels. Outside
    all boxes that is the background alone, inside one the background and every class that has a box in the image.
    "projection": for each class with a box in an image, one minus the Dice coefficient of the largest probability of
    each row with the boxes', and the same of columns, a mean. "pairwise": -log of the probability that a pixel and its
    neighbour in one of eight directions have one class, a mean over the pairs whose colour is alike and whose first
    pixel is in a box; its factor grows from 0 over the first `ramp` of the training.

    Labels are boxes filled with their class, as `data.name=weak` gives them. It is computed where the logits lie,
    averaged to `stride` pixels where they are finer.
    """

    takes: ClassVar = "a map of logits (N, K, h, w) with the image"
    tiny: ClassVar = {"stride": 1, "dilation": 1}

    name: Literal["box_regions"] = "box_regions"
    allowed_weight: float = Field(1.0, ge=0, le=1e6, description="factor of what pixels may show")
    projection_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the projections")
    pairwise_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the pairs, once it has grown")
    background: BackgroundClass = Field(
        "named",
        description="the class of what lies outside all boxes; named: the one that is called background, ground, other "
        "or the like",
    )
    alike: float = Field(0.3, gt=0, le=1, description="exp(-|Lab - Lab'| / 2) from which on colours are one")
    dilation: int = Field(2, ge=1, le=64, description="how far neighbours are apart, in pixels of the map")
    ramp: float = Field(0.11, ge=0, le=1, description="fraction of the training in which the pairs' factor grows")
    stride: int = Field(4, ge=1, le=64, description="pixels of the image that a pixel of the map has at least, a side")

    def for_classes(self, names: Sequence[str], background: int | None) -> Self:
        """See `Loss`."""
        settled = settled_background(self.name, self.background, names, background)
        if settled is None:
            raise UsageError(
                f"loss {self.name}: none of {', '.join(names[:8])} is called background, ground, other or the like; "
                "say which class lies outside all boxes"
            )
        return self.model_copy(update={"background": settled})

    def parts(
        self,
        logits: Any,
        labels: Tensor,
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the three parts, before their factors; the pairs with what has grown of theirs."""
        import torch
        from torch.nn import functional as F

        from segatlas.ops.box_losses import class_pairwise_losses, color_similarity, lab_of, projection_losses

        self.check(logits, class_weights)
        part, around = precise(logits.part), logits.around
        whole = canvas or (labels.shape[-2], labels.shape[-1])
        size = map_size(part, whole, self.stride)
        scores = (part if size == tuple(part.shape[-2:]) else F.adaptive_avg_pool2d(part, size)).log_softmax(dim=1)
        boxes = labels_on_map(labels, whole, size)  # (N, h, w)
        rest = background_index(self.background) or 0
        known, inside = boxes != IGNORE, (boxes != IGNORE) & (boxes != rest)
        classes = torch.arange(part.shape[1], device=part.device)
        present = ((boxes[:, None] == classes[:, None, None]) & known[:, None]).flatten(2).any(dim=2)  # (N, K)
        present[:, rest] = True
        background = classes == rest
        may = torch.where(inside[:, None], present[:, :, None, None], background[:, None, None])
        allowed = -scores.masked_fill(~may, -torch.inf).logsumexp(dim=1)
        of_pixels = torch.where(known, allowed, 0).sum() / known.sum().clamp(min=1)
        shown = present & ~background
        images, kinds = shown.nonzero(as_tuple=True)
        if not len(kinds):
            nothing = scores.sum() * 0
            return {"allowed": of_pixels, "projection": nothing, "pairwise": nothing}
        own = scores.exp()[images, kinds] * known[images]
        wanted = (boxes[images] == kinds[:, None, None]).to(own)
        plain, valid = pooled_image(around.plain, around.valid, canvas, size)
        similar = color_similarity(lab_of(plain.to(part)), valid, self.dilation)
        weight = (similar >= self.alike) & inside[:, None]
        pairs = (class_pairwise_losses(scores, self.dilation) * weight).sum() / weight.sum().clamp(min=1)
        return {
            "allowed": of_pixels,
            "projection": projection_losses(own, wanted).mean(),
            "pairwise": pairs * grown(around, self.ramp),
        }

    def value(
        self, logits: Any, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the three parts."""
        return (
            self.allowed_weight * parts["allowed"]
            + self.projection_weight * parts["projection"]
            + self.pairwise_weight * parts["pairwise"]
        )


def labels_on_map(labels: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return labels (N, H, W) at the middles of a map's pixels (N, h, w), 255 beyond the image."""
    from torch.nn import functional as F

    down, right = canvas[0] - labels.shape[-2], canvas[1] - labels.shape[-1]
    padded = F.pad(labels[:, None], (0, right, 0, down), value=IGNORE)
    return F.interpolate(padded.float(), size=size, mode="nearest-exact")[:, 0].long()


LOSS = BoxRegions
