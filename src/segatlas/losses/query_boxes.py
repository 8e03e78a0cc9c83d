"""The loss of queries where only boxes of objects are known: BoxInst's terms in place of those of masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.around import example_surroundings, pooled_image
from segatlas.losses.box_masks import grown
from segatlas.losses.loss import Canvas
from segatlas.losses.queries import QueryLoss
from segatlas.structures import QueryMasks, Target, WithSurroundings

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from segatlas.ops.query_losses import BoxTerms, MaskTerms
    from segatlas.ops.query_truth import QueryTruth, QueryTruths


class QueryBoxes(QueryLoss):
    """Queries from boxes (Tian et al. 2021, with the matching of Cheng et al. 2022): classes, projections, pairs.

    "dice" is one minus the Dice coefficient of the largest probability of each row with the box's, and the same of
    columns: of the matching, too, which knows no masks. "mask" is -log of the probability that a pixel and its
    neighbour in one of eight directions are on one side, a mean over pairs whose colour is alike and whose first pixel
    is in the box; its factor grows from 0 over the first `ramp` of the training, and the matching leaves it out.

    The truths are boxes as masks, as `data.name=weak` gives them. See `QueryLoss`; it takes the image, too.
    """

    takes: ClassVar = "classes and masks of queries (QueryMasks), with the image"
    reads_around: ClassVar = True
    tiny: ClassVar[dict[str, Any]] = {"dilation": 1}

    name: Literal["query_boxes"] = "query_boxes"
    mask_weight: float = Field(1.0, ge=0, le=1e6, description="factor of pairs of one colour")
    dice_weight: float = Field(5.0, ge=0, le=1e6, description="factor of the projections, and of their cost")
    alike: float = Field(0.3, gt=0, le=1, description="exp(-|Lab - Lab'| / 2) from which on colours are one")
    dilation: int = Field(2, ge=1, le=64, description="how far neighbours are apart, in pixels of the mask")
    ramp: float = Field(0.11, ge=0, le=1, description="fraction of the training in which the pairs' factor grows")

    def mask_terms(self) -> MaskTerms:
        """See `QueryLoss`: without an image no colours are alike, and only projections count."""
        from segatlas.ops.query_losses import BoxTerms

        return BoxTerms(similar={}, dilation=self.dilation, factor=0.0)

    def parts(
        self,
        logits: Any,
        labels: Tensor | Sequence[Target] | QueryTruths,
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the three parts, before their factors; CostError as `QueryLoss`."""
        self.check(logits, class_weights)
        return self.summed(logits.part, labels, lambda truths: self._terms(logits, truths))

    def _terms(self, logits: WithSurroundings, truths: Sequence[QueryTruth]) -> BoxTerms:
        from segatlas.ops.box_losses import color_similarity, lab_of
        from segatlas.ops.query_losses import BoxTerms

        output, around = logits.part, logits.around
        size = (output.mask_logits.shape[-2], output.mask_logits.shape[-1])
        plain, valid = pooled_image(around.plain, around.valid, output.canvas, size)
        similar = color_similarity(lab_of(plain), valid, self.dilation) >= self.alike
        return BoxTerms(
            similar={id(truth): one for truth, one in zip(truths, similar, strict=True)},
            dilation=self.dilation,
            factor=grown(around, self.ramp),
        )

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output with the image."""
        return isinstance(logits, WithSurroundings) and isinstance(logits.part, QueryMasks)

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Any:
        """See `Loss`."""
        return WithSurroundings(super().example(labels, classes, draw), example_surroundings(labels, classes, draw))


LOSS = QueryBoxes
