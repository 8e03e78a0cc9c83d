"""From the classes and masks of queries to class maps, objects and segments, in the image's own size.

What the published models do differently is data of the card, `ObjectRule.queries`. Letters: N batch, Q queries, K
classes, h w mask logits, H W result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from segatlas.config.objects import ObjectRule
from segatlas.errors import DataError, TaskError
from segatlas.ops import class_map, upsample_logits
from segatlas.ops.query_masks import MaskSteps, WonPixels, won_pixels
from segatlas.postprocess.composing import box_of
from segatlas.postprocess.selecting import selected
from segatlas.postprocess.semantic_logits import semantic_results
from segatlas.structures import Instance, Panoptic, QueryMasks, Resample, Result, Rle, Segment, SemanticLogits

Size = tuple[int, int]

LEAST = 1e-12
"""The sum of a pixel's scores is taken for this at least."""


def semantic(
    output: QueryMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the class map of each image, see `postprocess.Postprocess`.

    A class's score is the sum over queries of its probability times the mask's. confidence: the score of the chosen
    class as a fraction of the sum of all.
    """
    rule = rule or ObjectRule()
    if rule.queries.upsampled_to != "canvas":
        return _of_resized_scores(output, size, crop, confidence, rule)
    results = []
    for classes, masks in _images(output):
        steps = _steps(output, size, crop, rule)
        labels, sure = _best_classes(steps, classes, masks, confidence)
        results += semantic_results(labels[None], None if sure is None else sure[None])
    return results


def instance(
    output: QueryMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return the objects of each image, by falling score; see `postprocess.Postprocess`. No confidence map is made."""
    rule = rule or ObjectRule()
    steps = _steps(output, size, crop, rule)
    return [Result(objects=_objects(*one, steps, rule, things)) for one in _images(output)]


def panoptic(
    output: QueryMasks,
    size: Size,
    *,
    crop: Size,
    confidence: bool = False,
    rule: ObjectRule | None = None,
    things: Sequence[bool] = (),
) -> list[Result]:
    """Return segments, objects and a class map of each image: each is what the task of its own would give.

    Raises:
        TaskError: it is not known which classes are things.
    """
    if len(things) != output.class_logits.shape[-1] - 1:
        raise TaskError(
            f"{len(things)} classes are said to be things or stuff, and the network has "
            f"{output.class_logits.shape[-1] - 1}; without that it can give: semantic, instance"
        )
    rule = rule or ObjectRule()
    steps = _steps(output, size, crop, rule)
    maps = semantic(output, size, crop=crop, rule=rule)
    return [
        Result(
            class_map=of_classes.class_map,
            objects=_objects(classes, masks, steps, rule, things),
            segments=segments_of(classes, masks, steps, rule, things),
        )
        for of_classes, (classes, masks) in zip(maps, _images(output), strict=True)
    ]


def scores_of(output: QueryMasks, rule: ObjectRule) -> SemanticLogits:
    """Return the scores of classes as a map, over the canvas: of a rule that resizes probabilities, else of masks.

    For windows, whose scores are added up, and for comparisons: it holds (N, K) planes of the canvas.
    """
    step = MaskSteps(first=_first(output, rule), canvas=output.canvas, crop=output.canvas, size=output.canvas)
    maps = [
        torch.einsum("qk,qhw->khw", _probabilities(classes)[:, :-1], step.at_first(masks).sigmoid())
        for classes, masks in _images(output)
    ]
    return SemanticLogits(torch.stack(maps), canvas=output.canvas, resample=Resample())


def score_rows(
    output: QueryMasks, size: Size, *, crop: Size, rule: ObjectRule | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Yield chunks of an image's rows with the scores of classes that `semantic` compares: the first row, (K, rows, W).

    Args:
        output: of one image.
        size: (H, W) of the image.
        crop: of the canvas, what is image.
        rule: how class maps are made.
    """
    rule = rule or ObjectRule()
    ((classes, masks),) = _images(output)
    steps, weights = _steps(output, size, crop, rule), _probabilities(classes)[:, :-1].T.contiguous()
    if rule.queries.upsampled_to == "canvas":
        yield from steps.score_chunks(masks, weights)
    else:
        scores = torch.einsum("kq,qhw->khw", weights, steps.at_first(masks))[None]
        yield 0, upsample_logits(scores, size, canvas=output.canvas, crop=crop)[0]


def segments_of(classes: Tensor, masks: Tensor, steps: MaskSteps, rule: ObjectRule, things: Sequence[bool]) -> Panoptic:
    """Return the segments of an image.

    Args:
        classes: (Q, K + 1) logits.
        masks: (Q, h, w) logits.
        steps: to the image's size.
        rule: how they are composed.
        things: of each class, whether it is one of things.
    """
    own = rule.queries
    scores, kinds = _probabilities(classes).max(dim=1)
    kept = (kinds < classes.shape[1] - 1) & (scores > own.segment_score)
    kept = _best_things(kept, scores, kinds, rule.top, things).nonzero()[:, 0]
    if not len(kept):
        return Panoptic(ids=np.zeros(steps.size, np.int32), segments=())
    of_product = own.compared == "product"
    found = won_pixels(masks[kept], scores[kept], steps, threshold=rule.mask_threshold, of_product=of_product)
    return _composed(found, scores[kept].tolist(), kinds[kept].tolist(), rule, things)


def _composed(
    found: WonPixels, scores: Sequence[float], kinds: Sequence[int], rule: ObjectRule, things: Sequence[bool]
) -> Panoptic:
    """Return the segments of queries, by what each won; those of one class of stuff are one."""
    won, own = found.won.cpu().numpy(), found.own.cpu().numpy()
    winner = found.winner.cpu().numpy()
    inside = found.inside.cpu().numpy() if rule.queries.painted == "inside" else None
    painted = won if inside is None else np.bincount(winner[inside], minlength=len(won))
    numbers = np.zeros(len(won), np.int32)
    facts: list[tuple[int, float]] = []
    of_stuff: dict[int, int] = {}
    for index, (kind, score) in enumerate(zip(kinds, scores, strict=True)):
        if not (won[index] and own[index] and painted[index]) or _is_covered(won[index], own[index], rule):
            continue
        if not things[kind] and kind in of_stuff:
            numbers[index] = of_stuff[kind]
            continue
        facts.append((kind, score))
        numbers[index] = len(facts)
        if not things[kind]:
            of_stuff[kind] = len(facts)
    ids = numbers[winner]
    if inside is not None:
        ids[~inside] = 0
    return Panoptic(ids=ids, segments=_segments(ids, facts, things))


def _segments(ids: np.ndarray, facts: Sequence[tuple[int, float]], things: Sequence[bool]) -> tuple[Segment, ...]:
    """Return the records of segments 1, 2, ... of classes and scores; the box of each is looked for in its rows."""
    count = len(facts) + 1
    areas = np.bincount(ids.ravel(), minlength=count)
    seen = np.stack([np.bincount(row, minlength=count) > 0 for row in ids])  # (H, segments)
    records = []
    for number, (kind, score) in enumerate(facts, start=1):
        down = np.flatnonzero(seen[:, number])
        top, bottom = int(down[0]), int(down[-1]) + 1
        _, left, _, right = box_of(ids[top:bottom] == number)
        records.append(
            Segment(
                id=number,
                class_index=kind,
                is_thing=bool(things[kind]),
                score=score,
                area=int(areas[number]),
                box=(top, left, bottom, right),
            )
        )
    return tuple(records)


def _is_covered(won: int, own: int, rule: ObjectRule) -> bool:
    """Tell whether a query goes because others won too much of its own mask."""
    if rule.queries.strict:  # in float32, as its source has it: 4 of 5 are more than 0.8 there
        return not float(np.float32(won) / np.float32(own)) > rule.queries.segment_overlap
    return int(won) / int(own) < rule.queries.segment_overlap


def _best_things(kept: Tensor, scores: Tensor, kinds: Tensor, top: int | None, things: Sequence[bool]) -> Tensor:
    """Return which queries (Q,) take part when only the `top` best of those of things do."""
    if top is None:
        return kept
    is_thing = kept & torch.tensor([*things, False], device=kinds.device)[kinds]
    best = torch.where(is_thing, scores, -1).argsort(descending=True, stable=True)[:top]
    chosen = torch.zeros_like(kept)
    chosen[best] = True
    return (kept & ~is_thing) | (is_thing & chosen)


def _objects(
    classes: Tensor, masks: Tensor, steps: MaskSteps, rule: ObjectRule, things: Sequence[bool]
) -> tuple[Instance, ...]:
    """Return the objects of an image: of classes (Q, K + 1) and masks (Q, h, w), both logits."""
    chosen, kinds, scores = _pairs(_probabilities(classes)[:, :-1], rule)
    if things and len(things) == classes.shape[1] - 1:
        is_thing = torch.tensor(things, device=kinds.device)[kinds]
        chosen, kinds, scores = chosen[is_thing], kinds[is_thing], scores[is_thing]
    chosen, kinds, scores = chosen.cpu(), kinds.cpu(), scores.cpu()
    by_query: dict[int, list[int]] = {}
    for place, query in enumerate(chosen.tolist()):
        by_query.setdefault(query, []).append(place)
    found: list[tuple[int, Instance]] = []
    queries = torch.tensor([*by_query], dtype=torch.long, device=masks.device)
    for places, (bitmap, sure) in zip(by_query.values(), steps.masks(masks[queries], rule.mask_threshold), strict=True):
        runs = Rle.of(bitmap.cpu().numpy())
        if not runs.area:
            continue
        for place in places:
            score = float(scores[place] * sure.cpu())
            found.append((place, Instance(mask=runs, class_index=int(kinds[place]), score=score)))
    return selected([one for _, one in sorted(found, key=lambda pair: pair[0])], rule)


def _pairs(probabilities: Tensor, rule: ObjectRule) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, classes and probabilities of the pairs that are looked at, of (Q, K)."""
    count, classes = probabilities.shape
    if rule.queries.pairs == "best":
        best, kinds = probabilities.max(dim=1)
        return torch.arange(count, device=kinds.device), kinds, best
    wanted = count if rule.queries.pairs == "queries" else rule.queries.pairs
    values, places = probabilities.flatten().topk(min(wanted, probabilities.numel()))
    return places // classes, places % classes, values


def _best_classes(steps: MaskSteps, classes: Tensor, masks: Tensor, confidence: bool) -> tuple[Tensor, Tensor | None]:
    """Return the class map (H, W) of an image and, where asked for, how sure it is."""
    weights = _probabilities(classes)[:, :-1].T.contiguous()
    labels = torch.empty(steps.size, dtype=torch.uint8 if len(weights) <= 255 else torch.int32)
    sure = torch.empty(steps.size) if confidence else None
    for first, scores in steps.score_chunks(masks, weights):
        part = slice(first, first + scores.shape[1])
        best, kinds = scores.max(dim=0)
        labels[part] = kinds.to(labels)
        if sure is not None:
            sure[part] = (best / scores.sum(dim=0).clamp(min=LEAST)).to(sure)
    return labels, sure


def _of_resized_scores(output: QueryMasks, size: Size, crop: Size, confidence: bool, rule: ObjectRule) -> list[Result]:
    """Return class maps where the scores of classes are made at the size that masks are upsampled to, and resized."""
    results = []
    for classes, masks in _images(output):
        weights = _probabilities(classes)[:, :-1].T
        steps = _steps(output, size, crop, rule)
        scores = torch.einsum("kq,qhw->khw", weights, steps.at_first(masks))[None]
        labels = class_map(scores, size, canvas=output.canvas, crop=crop)
        results += semantic_results(labels, _fractions(scores, steps)[None] if confidence else None)
    return results


def _fractions(scores: Tensor, steps: MaskSteps) -> Tensor:
    """Return (H, W) the best of scores (1, K, h, w) as a fraction of their sum, plane by plane."""
    best, whole = scores.new_zeros(steps.size), scores.new_zeros(steps.size)
    for plane in scores[0].split(1):
        upsampled = upsample_logits(plane[None], steps.size, canvas=steps.canvas, crop=steps.crop)[0, 0]
        torch.maximum(best, upsampled, out=best)
        whole += upsampled
    return best / whole.clamp(min=LEAST)


def _steps(output: QueryMasks, size: Size, crop: Size, rule: ObjectRule) -> MaskSteps:
    if output.resample.mode != "bilinear":
        raise TaskError(f"masks of queries are upsampled bilinearly, not by {output.resample.mode!r}")
    return MaskSteps(
        first=_first(output, rule),
        canvas=output.canvas,
        crop=crop,
        size=size,
        probabilities=rule.queries.upsampled == "probabilities",
        align_corners=output.resample.align_corners,
    )


def _first(output: QueryMasks, rule: ObjectRule) -> Size | None:
    """Return the size that masks have after their first step."""
    upsampled = rule.queries.upsampled_to
    if upsampled == "canvas":
        return output.canvas
    return None if upsampled == "stride" else upsampled


def _probabilities(classes: Tensor) -> Tensor:
    return classes.softmax(dim=-1)


def _images(output: QueryMasks) -> list[tuple[Tensor, Tensor]]:
    """Return classes (Q, K + 1) and masks (Q, h, w) of each image. DataError where they are no numbers."""
    pairs = list(zip(output.class_logits, output.mask_logits, strict=True))
    for classes, masks in pairs:
        extremes = (*classes.aminmax(), *masks.aminmax())  # NaN where one is; `isfinite` would copy the masks
        if not bool(torch.stack(extremes).isfinite().all()):
            raise DataError("the network's classes or masks are not finite numbers")
    return pairs
