"""What the losses of queries share: who stands for which object is found anew at every layer, then classes and masks.

Letters: N batch, Q queries, K classes, h w mask logits, H W truth.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.errors import UsageError
from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import QueryLayer, QueryMasks, Target

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from segatlas.ops.query_losses import MaskTerms
    from segatlas.ops.query_truth import QueryTruth, QueryTruths


class LossParts(dict[str, Any]):
    """Values of parts by name, and their weighted sum, which alone has a gradient."""

    total: Tensor


class QueryLoss(Loss):
    """A loss of queries: the weighted sum of "class", "mask" and "dice", each a sum over the decoder's layers.

    At every layer queries are matched one to one with true objects at the lowest sum of costs, which are the parts with
    their factors, the class's being minus its probability. Cross-entropy of the classes is a weighted mean over
    queries, `none_weight` where one stands for no object; both losses of masks are divided by the number of objects of
    the batch. Where there is no object, masks cost nothing. Of more objects than queries those that fit worst are left.

    In place of logits and labels it takes the network's whole output, and the truths: labels (N, H, W), of which each
    class that occurs is an object, or a sequence of targets, which cover the top left part of the canvas. Void, crowds
    and padding are not judged. on: "logits" are all layers, "aux.layer_0" is the first alone.
    """

    output: ClassVar = "QueryMasks"
    takes: ClassVar = "classes and masks of queries (QueryMasks)"
    weighted: ClassVar = False

    class_weight: float = Field(2.0, ge=0, le=1e6, description="factor of the classes of queries, and of their cost")
    mask_weight: float = Field(5.0, ge=0, le=1e6, description="factor of the masks pixel by pixel, and of their cost")
    dice_weight: float = Field(5.0, ge=0, le=1e6, description="factor of Dice, and of its cost")
    none_weight: float = Field(0.1, ge=0, le=1e6, description="weight of queries that stand for no object")
    void: Literal["ignore", "background"] = Field(
        "ignore", description="what void, crowds and padding are: not judged, or as published background of all masks"
    )

    @abstractmethod
    def mask_terms(self) -> MaskTerms:
        """Return how masks are compared."""

    def parts(
        self,
        logits: QueryMasks,
        labels: Tensor | Sequence[Target] | QueryTruths,
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the three parts, before their factors.

        Raises:
            CostError: the costs of an image are not finite.
        """
        self.check(logits, class_weights)
        return self.summed(logits, labels, lambda truths: self.mask_terms())

    def summed(
        self,
        logits: QueryMasks,
        labels: Tensor | Sequence[Target] | QueryTruths,
        terms_of: Callable[[Sequence[QueryTruth]], MaskTerms],
    ) -> LossParts:
        """Return the three parts over all layers; terms_of: truths -> how masks are compared with them."""
        from segatlas.ops.query_losses import Weights, class_loss, mask_losses, masks_of_all, matched
        from segatlas.ops.query_truth import QueryTruths

        device = logits.mask_logits.device
        truths = labels if isinstance(labels, QueryTruths) else QueryTruths(labels, logits.canvas, device)
        wanted = truths.of(self.void == "ignore")
        _check_truths(logits, wanted)
        weights = Weights(
            classes=self.class_weight, mask=self.mask_weight, dice=self.dice_weight, none=self.none_weight
        )
        terms, count = terms_of(wanted), masks_of_all(wanted, device)
        sums: dict[str, Any] = dict.fromkeys(("class", "mask", "dice"), 0)
        total: Any = 0
        for layer in logits.layers:
            exact = QueryLayer(precise(layer.class_logits), precise(layer.mask_logits))
            pairs = matched(exact, wanted, terms, weights)
            of_class = class_loss(exact.class_logits, wanted, pairs, self.none_weight)
            of_masks, mask, dice = mask_losses(exact.mask_logits, wanted, pairs, terms, weights, count)
            total = total + self.class_weight * of_class + of_masks
            for name, value in zip(sums, (of_class.detach(), mask, dice), strict=True):
                sums[name] = sums[name] + value
        found = LossParts(sums)
        found.total = total
        return found

    def value(
        self,
        logits: QueryMasks,
        labels: Tensor | Sequence[Target],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the three parts."""
        if isinstance(parts, LossParts):
            return parts.total
        return self.class_weight * parts["class"] + self.mask_weight * parts["mask"] + self.dice_weight * parts["dice"]

    def given(self, output: QueryMasks) -> QueryMasks:
        """Return the whole output, or that of one earlier layer."""
        if self.on == "logits":
            return output
        layer: QueryLayer = super().given(output)
        return output._replace(class_logits=layer.class_logits, mask_logits=layer.mask_logits, aux={})

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, QueryMasks)

    def example(self, labels: Tensor, classes: int, draw: Generator) -> QueryMasks:
        """See `Loss`."""
        import torch

        count, (height, width) = len(labels), labels.shape[-2:]

        def layer() -> QueryLayer:
            return QueryLayer(
                torch.randn(count, 5, classes + 1, generator=draw, dtype=torch.float64),
                torch.randn(count, 5, -(-height // 4), -(-width // 4), generator=draw, dtype=torch.float64),
            )

        return QueryMasks(*layer(), canvas=(height, width), aux={"layer_0": layer()})


def _check_truths(logits: QueryMasks, truths: Sequence[QueryTruth]) -> None:
    """Raise UsageError where truths do not fit the output: their number, their size, or a class."""
    classes = logits.class_logits.shape[-1] - 1
    if len(truths) != len(logits.class_logits):
        raise UsageError(f"{len(truths)} truths for {len(logits.class_logits)} images")
    for truth in truths:
        if any(side > whole for side, whole in zip(truth.size, logits.canvas, strict=True)):
            raise UsageError(f"a truth of {truth.size} does not fit on the canvas {tuple(logits.canvas)}")
        if len(truth) and not 0 <= int(truth.classes.min()) <= int(truth.classes.max()) < classes:
            raise UsageError(f"a true class is {int(truth.classes.max())}, but the network has {classes} classes")
