"""The losses of two-stage networks: proposals against anchors' truth, then classes, boxes and masks of drawn boxes.

Letters: N batch, A anchors of a cell, T anchors of an image, R drawn boxes of a batch, B those of objects, K classes, m
cells of a mask a side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss
from segatlas.structures import DetectedMasks, InstancesTarget

if TYPE_CHECKING:
    from torch import Generator, Tensor


class TwoStage(Loss):
    """Two stages (Ren et al. 2015, He et al. 2017): the weighted sum of five parts.

    Binary cross-entropy of the drawn anchors' scores, and L1 of the deltas of those that stand for an object; then
    cross-entropy of the drawn boxes' classes, L1 of the deltas of objects' boxes, and binary cross-entropy of their
    masks. Both first ones are divided by the drawn anchors, the next two by the drawn boxes, masks are a mean over
    cells. Where nothing was drawn, a part is 0 with zero gradient. With a `beta` L1 is smooth (Girshick 2015):
    d^2 / (2 beta) below beta, d - beta / 2 from there on.

    In place of logits and labels it takes the network's whole output and the truths, which the network has used
    already: what is drawn, and what it should be, lies in `raw`.
    """

    output: ClassVar = "DetectedMasks"
    takes: ClassVar = "what a two-stage network draws while training (DetectedMasks)"
    weighted: ClassVar = False

    name: Literal["two_stage"] = "two_stage"
    rpn_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the scores of anchors")
    rpn_box_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the deltas of anchors")
    class_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the classes of boxes")
    box_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the deltas of boxes")
    mask_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the masks")
    rpn_box_beta: float = Field(0.0, ge=0, le=1e6, description="deltas of anchors that differ by less cost the square")
    box_beta: float = Field(0.0, ge=0, le=1e6, description="the same of deltas of boxes")

    def parts(
        self,
        logits: DetectedMasks,
        labels: Sequence[InstancesTarget],
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the five parts, before their factors."""
        self.check(logits, class_weights)
        return {**first_stage(logits.raw, self.rpn_box_beta), **second_stage(logits.raw, self.box_beta)}

    def value(
        self,
        logits: DetectedMasks,
        labels: Sequence[InstancesTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the five parts."""
        return (
            self.rpn_weight * parts["rpn"]
            + self.rpn_box_weight * parts["rpn_box"]
            + self.class_weight * parts["class"]
            + self.box_weight * parts["box"]
            + self.mask_weight * parts["mask"]
        )

    def given(self, output: DetectedMasks) -> DetectedMasks:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, DetectedMasks) and "rpn_labels" in logits.raw

    def example(self, labels: Tensor, classes: int, draw: Generator) -> DetectedMasks:
        """See `Loss`."""
        import torch

        count, cells, boxes, objects, side = len(labels), 12, 6, 2, 4

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw, dtype=torch.float64)

        kinds = torch.full((boxes,), classes)
        kinds[:objects] = 0
        raw = {
            "rpn_scores": (normal(count, 3, 2, cells // 6),),
            "rpn_deltas": (normal(count, 12, 2, cells // 6),),
            "rpn_labels": torch.arange(cells).expand(count, -1) % 3 - 1,
            "rpn_targets": normal(count, cells, 4),
            "box_logits": normal(boxes, classes + 1),
            "box_deltas": normal(boxes, 4 * classes),
            "box_classes": kinds,
            "box_targets": normal(objects, 4),
            "mask_logits": normal(objects, classes, side, side),
            "mask_targets": (normal(objects, side, side) > 0).double(),
        }
        size = (labels.shape[-2], labels.shape[-1])
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=size, raw=raw)


def first_stage(raw: Mapping[str, Any], beta: float = 0.0) -> dict[str, Tensor]:
    """Return the losses of anchors: scores (N, A, h, w) and deltas (N, 4 A, h, w) of each level against what is drawn.

    raw: `rpn_labels` (N, T) 1, 0, or -1 where an anchor is not drawn; `rpn_targets` (N, T, 4). beta: see `TwoStage`.
    """
    import torch
    from torch.nn import functional as F

    labels, targets = raw["rpn_labels"], raw["rpn_targets"]
    scores = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in raw["rpn_scores"]], dim=1)  # (N, T)
    deltas = torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in raw["rpn_deltas"]], dim=1)
    scores, deltas = _precise(scores), _precise(deltas)
    is_drawn, is_object = labels >= 0, labels == 1
    count = is_drawn.sum().clamp(min=1)
    wanted = labels[is_drawn].to(scores)
    of_scores = F.binary_cross_entropy_with_logits(scores[is_drawn], wanted, reduction="sum")
    wanted_deltas = targets[is_object].to(deltas)
    of_deltas = F.smooth_l1_loss(deltas[is_object], wanted_deltas, reduction="sum", beta=beta)
    return {"rpn": of_scores / count, "rpn_box": of_deltas / count}


def second_stage(raw: Mapping[str, Any], beta: float = 0.0) -> dict[str, Tensor]:
    """Return the losses of drawn boxes: logits (R, K + 1), deltas (R, 4 K) and masks (B, K, m, m).

    raw: `box_classes` (R,), K = no object; `box_targets` (B, 4) and `mask_targets` (B, m, m) of objects' boxes, in the
    order in which they stand among all. beta: see `TwoStage`.
    """
    from torch.nn import functional as F

    logits, deltas, masks = (_precise(raw[name]) for name in ("box_logits", "box_deltas", "mask_logits"))
    classes = raw["box_classes"]
    count = max(len(classes), 1)
    own = classes < logits.shape[1] - 1
    kinds = classes[own]
    chosen = deltas.unflatten(1, (-1, 4))[own].take_along_dim(kinds[:, None, None].expand(-1, 1, 4), 1)[:, 0]
    shown = masks.take_along_dim(kinds[:, None, None, None].expand(-1, 1, *masks.shape[2:]), 1)[:, 0]
    wanted = raw["mask_targets"].to(shown)
    return {
        "class": F.cross_entropy(logits, classes, reduction="sum") / count,
        "box": F.smooth_l1_loss(chosen, raw["box_targets"].to(chosen), reduction="sum", beta=beta) / count,
        "mask": F.binary_cross_entropy_with_logits(shown, wanted, reduction="sum") / max(shown.numel(), 1),
    }


def _precise(values: Tensor) -> Tensor:
    return values.float() if values.element_size() < 4 else values


LOSS = TwoStage
