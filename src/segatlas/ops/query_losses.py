"""What the masks of queries cost: for the matching each beside every true object, for the loss matched pairs.

Gradients of the loss are made with its values, a few masks at a time, and only they are kept: at the network's stride.

Letters: N batch, Q queries, M objects of an image, P points, R matched pairs, h w mask logits, H' W' canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segatlas.errors import CostError
from segatlas.ops.box_losses import SMALLEST, pairwise_losses, projection_losses
from segatlas.ops.query_truth import QueryTruth
from segatlas.structures import QueryLayer

MASKS_AT_ONCE = 8
"""Matched masks whose points are looked at together."""

PIXELS_AT_ONCE = 1 << 18
"""Pixels of matched masks that are looked at together, where whole masks are compared."""


class MaskTerms(Protocol):
    """How masks are compared."""

    def costs(self, masks: Tensor, truth: QueryTruth) -> tuple[Tensor, Tensor]:
        """Return what masks (Q, h, w) cost beside each object, pixel by pixel and as Dice: both (Q, M)."""
        ...

    def losses(self, masks: Tensor, truth: QueryTruth, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses of masks (R, h, w) beside objects `rows` (R,): both (R,)."""
        ...

    def at_once(self, truth: QueryTruth) -> int:
        """Return how many masks to give to `losses`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PointTerms:
    """Binary cross-entropy and Dice at points drawn from torch's generator (Cheng et al. 2022, section 3.3).

    points: P. oversample: as many times more are drawn first. important: the fraction of P that is then taken where the
    mask is least sure; the others are drawn anew.
    """

    points: int
    oversample: float
    important: float

    def costs(self, masks: Tensor, truth: QueryTruth) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`: at the same points for all of an image."""
        places = torch.rand(1, self.points, 2, device=masks.device, dtype=masks.dtype)[0]
        values = _sampled(masks[None], places[None])[0]
        wanted, judged = truth.at(places), truth.judged_at(places)
        return _pixel_costs(values, wanted, judged), _dice_costs(values, wanted, judged)

    def losses(self, masks: Tensor, truth: QueryTruth, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`: at points of its own for each mask."""
        with torch.no_grad():
            places = self.places(masks.detach(), truth)
            wanted, judged = truth.own(rows, places), truth.judged_at(places)
        values = _sampled(masks[:, None], places)[:, 0]
        each = F.binary_cross_entropy_with_logits(values, wanted, reduction="none")
        return _mean(each, judged), _dice(values, wanted, judged)

    def places(self, masks: Tensor, truth: QueryTruth) -> Tensor:
        """Return points (R, P, 2) for masks (R, h, w); the least sure ones are looked for where something is judged."""
        drawn = torch.rand(len(masks), int(self.points * self.oversample), 2, device=masks.device, dtype=masks.dtype)
        sure = _sampled(masks[:, None], drawn)[:, 0].abs()
        judged = truth.judged_at(drawn)
        if judged is not None:
            sure = torch.where(judged, sure, torch.inf)
        count = int(self.important * self.points)
        least = sure.topk(count, dim=1, largest=False).indices
        chosen = drawn.take_along_dim(least[:, :, None], dim=1)
        others = torch.rand(len(masks), self.points - count, 2, device=masks.device, dtype=masks.dtype)
        return torch.cat([chosen, others], dim=1)

    def at_once(self, truth: QueryTruth) -> int:
        """See `MaskTerms`."""
        return MASKS_AT_ONCE


@dataclass(frozen=True, kw_only=True)
class WholeTerms:
    """Focal loss (Lin et al. 2017) and Dice of whole masks (Cheng et al. 2021).

    For matching truths are made as small as the logits, for the loss logits as large as the canvas. alpha: weight of
    pixels inside. gamma: how much what is known well is weighted down.
    """

    alpha: float
    gamma: float

    def costs(self, masks: Tensor, truth: QueryTruth) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`."""
        covered, judged = truth.nearest((masks.shape[-2], masks.shape[-1]))
        values, wanted = masks.flatten(1), covered.to(masks.dtype)
        return _pixel_costs(values, wanted, judged, self), _dice_costs(values, wanted, judged)

    def losses(self, masks: Tensor, truth: QueryTruth, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`."""
        whole = F.interpolate(masks[:, None], size=truth.canvas, mode="bilinear", align_corners=False)
        values, wanted = whole.flatten(1), truth.whole(rows).flatten(1).to(masks.dtype)
        judged = truth.judged_whole()
        judged = None if judged is None else judged.flatten()
        inside, outside = self.of_both(values)
        return _mean(outside + (inside - outside) * wanted, judged), _dice(values, wanted, judged)

    def of_both(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the focal loss of logits where the object is, and where it is not."""
        p = values.sigmoid()
        return (
            self.alpha * (1 - p) ** self.gamma * F.softplus(-values),
            (1 - self.alpha) * p**self.gamma * F.softplus(values),
        )

    def at_once(self, truth: QueryTruth) -> int:
        """See `MaskTerms`."""
        return max(1, PIXELS_AT_ONCE // (truth.canvas[0] * truth.canvas[1]))


@dataclass(frozen=True, kw_only=True)
class BoxTerms:
    """What boxes say of masks (Tian et al. 2021): projections for the matching, and pairs of one colour as losses.

    similar: by `id` of the truth of an image, (8, h, w) bool, which neighbours have a pixel's colour. dilation: how far
    these are apart. factor: of the pairs.
    """

    similar: Mapping[int, Tensor]
    dilation: int
    factor: float

    def costs(self, masks: Tensor, truth: QueryTruth) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`: pairs cost nothing, for they tell no objects apart."""
        p, boxes = masks.sigmoid(), self._boxes(truth, masks)
        total = masks.new_zeros(len(masks), len(boxes))
        for dim in (1, 2):
            found, wanted = p.amax(dim=dim), boxes.amax(dim=dim)
            squares = found.square().sum(dim=1, keepdim=True) + wanted.square().sum(dim=1) + SMALLEST
            total += 1 - 2 * found @ wanted.T / squares
        return torch.zeros_like(total), total

    def losses(self, masks: Tensor, truth: QueryTruth, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `MaskTerms`."""
        boxes = self._boxes(truth, masks)[rows]
        projection = projection_losses(masks.sigmoid(), boxes)
        similar = self.similar.get(id(truth))
        if similar is None or self.factor == 0:
            return masks.flatten(1).sum(dim=1) * 0, projection
        weight = similar[None] * boxes[:, None]
        pairs = (pairwise_losses(masks, self.dilation) * weight).flatten(1).sum(dim=1)
        return self.factor * pairs / weight.flatten(1).sum(dim=1).clamp(min=1), projection

    def at_once(self, truth: QueryTruth) -> int:
        """See `MaskTerms`."""
        return MASKS_AT_ONCE

    @staticmethod
    def _boxes(truth: QueryTruth, masks: Tensor) -> Tensor:
        """Return the objects of a truth on the map of masks, (M, h, w) of 0 and 1."""
        size = (masks.shape[-2], masks.shape[-1])
        return truth.nearest(size)[0].to(masks).reshape(-1, *size)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Factors of the costs of a pair, and of the parts of the loss. none: of a query that stands for no object."""

    classes: float
    mask: float
    dice: float
    none: float


class MatchedQueries(NamedTuple):
    """Indices of queries and of the objects that they stand for, each (R,) int64."""

    queries: Tensor
    objects: Tensor


@torch.no_grad()
def matched(
    layer: QueryLayer, truths: Sequence[QueryTruth], terms: MaskTerms, weights: Weights
) -> list[MatchedQueries]:
    """Return of each image which query stands for which object, at the lowest sum of costs, by rising query.

    Of several assignments of the same sum it is the one that scipy finds, the same one at every call.

    Raises:
        CostError: a cost is not finite; it says of which images.
    """
    pairs, wrong = [], []
    for index, truth in enumerate(truths):
        if not len(truth):
            pairs.append(MatchedQueries(*(truth.classes.new_zeros(0) for _ in range(2))))
            continue
        probabilities = layer.class_logits[index].softmax(dim=-1)
        of_mask, of_dice = terms.costs(layer.mask_logits[index], truth)
        costs = weights.mask * of_mask - weights.classes * probabilities[:, truth.classes] + weights.dice * of_dice
        table = costs.double().cpu().numpy()
        if not np.isfinite(table).all():
            wrong.append(index)
            continue
        pair = (torch.from_numpy(one).to(truth.classes.device) for one in linear_sum_assignment(table))
        pairs.append(MatchedQueries(*pair))
    if wrong:
        raise CostError("the costs of matching queries with true objects are not finite", wrong)
    return pairs


def class_loss(logits: Tensor, truths: Sequence[QueryTruth], pairs: Sequence[MatchedQueries], none: float) -> Tensor:
    """Return the weighted mean cross-entropy of classes (N, Q, K + 1): those without an object should say the last."""
    wanted = torch.full(logits.shape[:2], logits.shape[2] - 1, device=logits.device)
    for row, truth, (queries, objects) in zip(wanted, truths, pairs, strict=True):
        row[queries] = truth.classes[objects]
    each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    weight = torch.where(wanted.flatten() < logits.shape[2] - 1, 1.0, none).to(each)
    return (each * weight).sum() / weight.sum().clamp(min=torch.finfo(each.dtype).tiny)


def mask_losses(
    masks: Tensor,
    truths: Sequence[QueryTruth],
    pairs: Sequence[MatchedQueries],
    terms: MaskTerms,
    weights: Weights,
    count: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of both losses with their factors, which has a gradient, and the two values without.

    Args:
        masks: (N, Q, h, w) logits.
        truths: of each image.
        pairs: of each image.
        terms: how masks are compared.
        weights: factors.
        count: number of masks that sums are divided by.
    """
    images = torch.cat([torch.full_like(queries, index) for index, (queries, _) in enumerate(pairs)])
    rows = masks[images, torch.cat([queries for queries, _ in pairs])]  # (R, h, w)
    values = rows.new_zeros(2)
    wants_gradient = rows.requires_grad and torch.is_grad_enabled()
    gradient = torch.zeros_like(rows) if wants_gradient else None
    begin = 0
    for truth, (_, objects) in zip(truths, pairs, strict=True):
        for part in objects.split(terms.at_once(truth)) if len(objects) else ():
            place = slice(begin, begin + len(part))
            begin += len(part)
            given = rows[place].detach().requires_grad_(wants_gradient)
            with torch.set_grad_enabled(wants_gradient):
                of_mask, of_dice = (each.sum() / count for each in terms.losses(given, truth, part))
                if gradient is not None:
                    total = weights.mask * of_mask + weights.dice * of_dice
                    (gradient[place],) = torch.autograd.grad(total, given)
            values += torch.stack([of_mask, of_dice]).detach()
    total = weights.mask * values[0] + weights.dice * values[1]
    if gradient is not None:
        total = _WithGradient.apply(rows, total, gradient)
    return total, values[0], values[1]


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def masks_of_all(truths: Sequence[QueryTruth], device: torch.device) -> float:
    """Return the number of objects, of several processes the mean; at least 1."""
    count = torch.tensor(float(sum(map(len, truths))), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return max(float(count), 1.0)


def _sampled(masks: Tensor, points: Tensor) -> Tensor:
    """Return masks (B, C, h, w) at points (B, P, 2), bilinearly, 0 beyond the border: (B, C, P)."""
    return F.grid_sample(masks, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def _pixel_costs(values: Tensor, wanted: Tensor, judged: Tensor | None, focal: WholeTerms | None = None) -> Tensor:
    """Return the mean loss of logits (Q, P) beside each of the truths (M, P): (Q, M)."""
    inside, outside = (F.softplus(-values), F.softplus(values)) if focal is None else focal.of_both(values)
    gain, count = inside - outside, values.new_tensor(values.shape[1])
    if judged is not None:
        wanted, outside, count = wanted * judged, outside * judged, judged.sum().clamp(min=1)
    return (outside.sum(dim=1, keepdim=True) + gain @ wanted.T) / count


def _dice_costs(values: Tensor, wanted: Tensor, judged: Tensor | None) -> Tensor:
    """Return one minus the Dice coefficient of logits (Q, P) with each of the truths (M, P): (Q, M)."""
    p = values.sigmoid()
    if judged is not None:
        p, wanted = p * judged, wanted * judged
    return 1 - (2 * p @ wanted.T + 1) / (p.sum(dim=1, keepdim=True) + wanted.sum(dim=1) + 1)


def _mean(each: Tensor, judged: Tensor | None) -> Tensor:
    """Return the mean over the judged of (R, P)."""
    if judged is None:
        return each.mean(dim=1)
    return (each * judged).sum(dim=1) / judged.sum(dim=-1).clamp(min=1)


def _dice(values: Tensor, wanted: Tensor, judged: Tensor | None) -> Tensor:
    """Return one minus the Dice coefficient of logits (R, P) with their own truth (R, P): (R,)."""
    p = values.sigmoid()
    if judged is not None:
        p, wanted = p * judged, wanted * judged
    return 1 - (2 * (p * wanted).sum(dim=1) + 1) / (p.sum(dim=1) + wanted.sum(dim=1) + 1)
