"""Masks of objects of which only boxes are known: BoxInst's losses, for networks that draw a mask for each object.

Letters: N batch, S masks of a batch, h w the map that they lie on, over the canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.around import example_surroundings, pooled_image
from segatlas.losses.dynamic_masks import DynamicMasks
from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import DetectedMasks, InstancesTarget, Surroundings, WithSurroundings

if TYPE_CHECKING:
    from torch import Generator, Tensor


class BoxMasks(Loss):
    """Masks from boxes (Tian et al. 2021, https://arxiv.org/abs/2012.02310): the weighted sum of two parts.

    "projection": one minus the Dice coefficient of the largest probability of each row with the box's, and the same of
    columns; a mean over masks. "pairwise": -log of the probability that a pixel and its neighbour in one of eight
    directions are on one side, a mean over the pairs whose colour is alike (`alike` or more) and whose first pixel is
    in the box. Its factor grows from 0 over the first `ramp` of the training.

    The truths are boxes as masks, as `data.name=weak` gives them. It goes beside the network's own loss with
    `mask_weight: 0`. It takes the network's whole output and the image.
    """

    output: ClassVar = "DetectedMasks"
    takes: ClassVar = "what a network draws of each object while training (DetectedMasks), with the image"
    reads_around: ClassVar = True
    weighted: ClassVar = False

    name: Literal["box_masks"] = "box_masks"
    projection_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the projections")
    pairwise_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the pairs, once it has grown")
    alike: float = Field(0.3, gt=0, le=1, description="exp(-|Lab - Lab'| / 2) from which on colours are one")
    dilation: int = Field(2, ge=1, le=64, description="how far neighbours are apart, in pixels of the mask")
    ramp: float = Field(0.11, ge=0, le=1, description="fraction of the training in which the pairs' factor grows")
    stride: int = Field(4, ge=1, le=64, description="of two-stage networks: pixels that a pixel of the map has a side")

    def parts(
        self,
        logits: Any,
        labels: Sequence[InstancesTarget],
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the two parts; the pairs with what has grown of their factor."""
        from segatlas.ops.box_losses import color_similarity, lab_of, pairwise_losses, projection_losses

        self.check(logits, class_weights)
        output, around = logits.part, logits.around
        masks, boxes, images = self.masks_of(output)
        judged = (boxes >= 0).to(masks)
        wanted = (boxes > 0).to(masks)
        if not len(masks):
            return {"projection": masks.sum(), "pairwise": masks.sum()}
        projection = projection_losses(masks.sigmoid() * judged, wanted).mean()
        size = (masks.shape[-2], masks.shape[-1])
        plain, valid = pooled_image(around.plain, around.valid, output.canvas, size)
        similar = color_similarity(lab_of(plain), valid, self.dilation)[images]
        weight = (similar >= self.alike).to(masks) * wanted[:, None]
        pairs = (pairwise_losses(masks, self.dilation) * weight).sum() / weight.sum().clamp(min=1)
        return {"projection": projection, "pairwise": pairs * grown(around, self.ramp)}

    def masks_of(self, output: DetectedMasks) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of masks (S, h, w), their boxes as masks likewise (-1 beyond the image), and images (S,)."""
        import torch

        from segatlas.ops.box_losses import OUTSIDE, pasted

        raw = output.raw
        if "mask_images" in raw:
            return precise(raw["mask_logits"]), raw["mask_targets"], raw["mask_images"]
        classes, drawn = raw["box_classes"], precise(raw["mask_logits"])
        boxes = torch.cat(list(raw["proposals"]))
        images = torch.cat([classes.new_full((len(one),), index) for index, one in enumerate(raw["proposals"])])
        own = classes < drawn.shape[1]
        kinds = classes[own]
        shown = drawn.take_along_dim(kinds[:, None, None, None].expand(-1, 1, *drawn.shape[2:]), 1)[:, 0]
        places = boxes[own].to(shown)
        masks = pasted(shown, places, output.canvas, self.stride, OUTSIDE)
        wanted = pasted(raw["mask_targets"].to(shown), places, output.canvas, self.stride, 0.0)
        return masks, (wanted >= 0.5).to(shown), images[own]

    def value(
        self,
        logits: Any,
        labels: Sequence[InstancesTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the two parts."""
        return self.projection_weight * parts["projection"] + self.pairwise_weight * parts["pairwise"]

    def given(self, output: DetectedMasks) -> DetectedMasks:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output with the image."""
        if not isinstance(logits, WithSurroundings) or not isinstance(logits.part, DetectedMasks):
            return False
        return "mask_targets" in logits.part.raw

    def example(self, labels: Tensor, classes: int, draw: Generator) -> WithSurroundings:
        """See `Loss`."""
        output = DynamicMasks().example(labels, classes, draw)
        raw = {**output.raw, "mask_images": labels.new_zeros(len(output.raw["mask_logits"])).long()}
        return WithSurroundings(output._replace(raw=raw), example_surroundings(labels, classes, draw))


def grown(around: Surroundings, ramp: float) -> float:
    """Return how far a factor has grown that is whole after the first `ramp` of the training, 0..1."""
    return 1.0 if ramp <= 0 else min(around.progress / ramp, 1.0)


LOSS = BoxMasks
