"""Queries to class maps, objects and segments: beside a slow form that makes every mask as large as the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas.config.objects import (
    CLASS_MAPS_OF_QUERIES,
    MASK2FORMER,
    MMDET_MASKFORMER,
    TRANSFORMERS_EOMT,
    TRANSFORMERS_MASK2FORMER,
    TRANSFORMERS_MASKFORMER,
    ObjectRule,
    QueryRule,
    asked_rule,
    rule_faults,
)
from segatlas.errors import DataError, TaskError, UsageError
from segatlas.postprocess import find
from segatlas.postprocess.query_masks import scores_of
from segatlas.structures import Panoptic, QueryMasks, Resample, Rle

K, Q, STRIDE = 6, 14, 4
THINGS = (True, False, True, False, True, True)
SIZES = (((64, 80), (64, 80), (64, 80)), ((64, 96), (64, 90), (97, 131)), ((64, 64), (50, 64), (30, 41)))
"""Canvas, crop, size of the result."""

RULES = {
    "mask2former": MASK2FORMER,
    "class maps": CLASS_MAPS_OF_QUERIES,
    "mmdet maskformer": MMDET_MASKFORMER,
    "transformers mask2former": replace(
        TRANSFORMERS_MASK2FORMER, queries=replace(TRANSFORMERS_MASK2FORMER.queries, upsampled_to=(48, 40))
    ),
    "transformers maskformer": TRANSFORMERS_MASKFORMER,
    "transformers eomt": TRANSFORMERS_EOMT,
}


def blobs(seed: int, canvas: tuple[int, int], count: int = 2) -> QueryMasks:
    """Return queries whose masks share an image but for seams, some twice, most of them sure of their class."""
    draw = torch.Generator().manual_seed(seed)
    small = torch.randn(count, Q, 5, 6, generator=draw)
    fields = F.interpolate(small, size=(canvas[0] // STRIDE, canvas[1] // STRIDE), mode="bicubic")
    best, second = fields.topk(2, dim=1).values.unbind(1)
    others = torch.where(fields == best[:, None], second[:, None], best[:, None])
    masks = (fields - others) * 9 + torch.rand(count, Q, 1, 1, generator=draw)
    masks[:, 5] = masks[:, 4] - 0.3  # the same object again, which it wins little of
    classes = torch.randn(count, Q, K + 1, generator=draw) * 3
    classes[:, :2] = classes[:, 2:4]  # of the same classes
    return QueryMasks(classes, masks, canvas)


def slow_probabilities(masks: torch.Tensor, rule: QueryRule, canvas: Any, crop: Any, size: Any) -> torch.Tensor:
    """Return (Q, H, W) as published: every mask whole, step by step."""

    def to_image(maps: torch.Tensor) -> torch.Tensor:
        if tuple(maps.shape[1:]) != canvas:
            assert crop == canvas
            return F.interpolate(maps[None], size=size, mode="bilinear")[0]
        maps = maps[:, : crop[0], : crop[1]]
        return maps if crop == size else F.interpolate(maps[None], size=size, mode="bilinear")[0]

    if rule.upsampled_to != "stride":
        first = canvas if rule.upsampled_to == "canvas" else rule.upsampled_to
        masks = F.interpolate(masks[None], size=first, mode="bilinear")[0]
    return to_image(masks.sigmoid()) if rule.upsampled == "probabilities" else to_image(masks).sigmoid()


def slow_segments(classes: torch.Tensor, whole: torch.Tensor, rule: ObjectRule) -> list[tuple[int, np.ndarray]]:
    """Return the (class, mask) of each segment, from probabilities (Q, H, W) of whole masks."""
    own, found, stuff = rule.queries, [], {}
    scores, kinds = classes.softmax(-1).max(-1)
    keep = (kinds != K) & (scores > own.segment_score)
    if not keep.any():
        return []
    scores, kinds, whole = scores[keep], kinds[keep], whole[keep]
    product = scores[:, None, None] * whole
    winner = product.argmax(0)
    for q, kind in enumerate(kinds.tolist()):
        mask = (product[q] if own.compared == "product" else whole[q]) >= rule.mask_threshold
        won = winner == q
        paint = won & mask if own.painted == "inside" else won
        if not (won.any() and mask.any() and paint.any()):
            continue
        ratio = (won.sum() / mask.sum()).item() if own.strict else won.sum().item() / mask.sum().item()
        if (ratio <= own.segment_overlap) if own.strict else (ratio < own.segment_overlap):
            continue
        if not THINGS[kind] and kind in stuff:
            stuff[kind] |= paint.numpy()
            continue
        found.append((kind, paint.numpy().copy()))
        if not THINGS[kind]:
            stuff[kind] = found[-1][1]
    return found


def pairs_of(panoptic: Panoptic) -> list[tuple[int, np.ndarray]]:
    return [(one.class_index, panoptic.ids == one.id) for one in panoptic.segments]


def steps_of(rule: ObjectRule) -> list[Any]:
    whole = rule.queries.upsampled_to == "canvas"
    return [(canvas, crop if whole else canvas, size) for canvas, crop, size in SIZES]


@pytest.mark.parametrize("name", RULES)
def test_segments_are_those_of_the_published_order(name):
    rule, seen = RULES[name], 0
    rule = replace(rule, queries=replace(rule.queries, segment_score=min(rule.queries.segment_score, 0.6)))
    for seed, (canvas, crop, size) in enumerate(steps_of(rule)):
        output = blobs(seed, canvas)
        results = find("QueryMasks", "panoptic")(output, size, crop=crop, rule=rule, things=THINGS)
        for result, classes, masks in zip(results, output.class_logits, output.mask_logits, strict=True):
            expected = slow_segments(classes, slow_probabilities(masks, rule.queries, canvas, crop, size), rule)
            found = pairs_of(result.panoptic)
            assert [kind for kind, _ in found] == [kind for kind, _ in expected]
            assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, expected, strict=True))
            for one in result.panoptic.segments:
                inside = result.panoptic.ids == one.id
                rows, columns = np.nonzero(inside)
                assert one.area == inside.sum()
                assert one.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
                assert one.is_thing == THINGS[one.class_index]
            assert set(np.unique(result.panoptic.ids)) <= {0, *(one.id for one in result.panoptic.segments)}
            seen += len(expected)
    assert seen >= 8


@pytest.mark.parametrize("name", RULES)
def test_class_maps_are_those_of_the_published_order(name):
    rule = RULES[name]
    for seed, (canvas, crop, size) in enumerate(steps_of(rule)):
        output = blobs(seed, canvas)
        results = find("QueryMasks", "semantic")(output, size, crop=crop, rule=rule, confidence=True)
        for result, classes, masks in zip(results, output.class_logits, output.mask_logits, strict=True):
            whole = slow_probabilities(masks, rule.queries, canvas, crop, size)
            scores = torch.einsum("qk,qhw->khw", classes.softmax(-1)[:, :-1], whole)
            best = scores.topk(2, dim=0).values
            clear = (best[0] - best[1] > 1e-4 * best[0]).numpy()
            assert result.semantic.dtype == np.uint8
            assert (result.semantic == scores.argmax(0).numpy())[clear].all()
            assert clear.mean() > 0.99
            torch.testing.assert_close(
                torch.from_numpy(result.confidence), best[0] / scores.sum(0), atol=1e-3, rtol=1e-3
            )


@pytest.mark.parametrize(
    "name", ["mask2former", "transformers mask2former", "transformers maskformer", "transformers eomt"]
)
def test_objects_are_those_of_the_published_order(name):
    rule = replace(RULES[name], score=0.0)
    for seed, (canvas, crop, size) in enumerate(steps_of(rule)):
        output = blobs(seed, canvas)
        results = find("QueryMasks", "instance")(output, size, crop=crop, rule=rule)
        for result, classes, masks in zip(results, output.class_logits, output.mask_logits, strict=True):
            scores = classes.softmax(-1)[:, :-1]
            if rule.queries.pairs == "best":
                values, kinds = scores.max(-1)
                queries = torch.arange(Q)
            else:
                values, places = scores.flatten().topk(Q if rule.queries.pairs == "queries" else min(100, Q * K))
                queries, kinds = places // K, places % K
            first = canvas if rule.queries.upsampled_to == "canvas" else rule.queries.upsampled_to
            upsampled = masks if first == "stride" else F.interpolate(masks[None], size=first, mode="bilinear")[0]
            if rule.queries.upsampled == "logits" and crop != size:
                upsampled = F.interpolate(upsampled[None, :, : crop[0], : crop[1]], size=size, mode="bilinear")[0]
            elif rule.queries.upsampled == "logits":
                upsampled = upsampled[:, : crop[0], : crop[1]]
            inside = (upsampled > 0).float()
            sure = (upsampled.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
            if rule.queries.upsampled == "probabilities":
                inside = F.interpolate(inside[None], size=size, mode="nearest")[0]
            expected = [
                (float(value * sure[q]), int(kind), inside[q].bool().numpy())
                for value, q, kind in zip(values, queries.tolist(), kinds, strict=True)
                if inside[q].any()
            ]
            expected.sort(key=lambda one: -one[0])
            assert len(result.instances) == len(expected) > 5
            for one, (score, _, _) in zip(result.instances, expected, strict=True):
                assert one.score == pytest.approx(score, abs=1e-5)
            found = {(one.class_index, one.rle) for one in result.instances}
            assert found == {(kind, Rle.of(mask)) for _, kind, mask in expected}


def test_segments_that_repeat_a_class_of_stuff_have_one_id_and_things_have_ids_of_their_own():
    classes = torch.full((1, 5, K + 1), -10.0)
    for query, kind in enumerate([0, 1, 2, 1, 0]):  # thing, stuff, thing, the same stuff, thing
        classes[0, query, kind] = 10
    masks = torch.full((1, 5, 10, 10), -10.0)
    for query in range(5):
        masks[0, query, 2 * query : 2 * query + 2] = 10
    (found,) = find("QueryMasks", "panoptic")(
        QueryMasks(classes, masks, (10, 10)), (10, 10), crop=(10, 10), things=THINGS
    )
    assert [(one.id, one.class_index) for one in found.panoptic.segments] == [(1, 0), (2, 1), (3, 2), (4, 0)]
    assert found.panoptic.ids[::2, 0].tolist() == [1, 2, 3, 2, 4]
    assert (found.semantic[:, 0] == np.repeat([0, 1, 2, 1, 0], 2)).all()
    assert sorted(one.class_index for one in found.instances if one.score > 0.5) == [0, 0, 2]  # things alone


def test_no_sure_query_leaves_an_empty_image_and_a_map_all_the_same():
    output = QueryMasks(torch.zeros(1, Q, K + 1), torch.full((1, Q, 4, 4), -9.0), (16, 16))
    (found,) = find("QueryMasks", "panoptic")(output, (20, 30), crop=(16, 16), things=THINGS)
    assert found.panoptic.segments == ()
    assert not found.panoptic.ids.any()
    assert found.instances == ()
    assert found.semantic.shape == (20, 30)


def test_a_pixel_takes_part_in_a_segment_of_its_own_in_an_image_of_one_pixel():
    classes = torch.tensor([[[9.0] + [0] * K]])
    output = QueryMasks(classes, torch.ones(1, 1, 1, 1) * 5, (4, 4))
    (found,) = find("QueryMasks", "panoptic")(output, (1, 1), crop=(1, 1), things=THINGS)
    assert found.panoptic.ids.tolist() == [[1]]
    assert found.semantic.tolist() == [[0]]
    assert found.instances[0].area == 1


def test_more_than_256_queries_are_told_apart():
    count = 300
    classes = torch.full((1, count, K + 1), -20.0)
    classes[..., 0] = 20
    masks = torch.full((1, count, 1, count), -20.0)
    masks[0, range(count), 0, range(count)] = 20
    output = QueryMasks(classes, masks, (1, count))
    (found,) = find("QueryMasks", "panoptic")(output, (1, count), crop=(1, count), things=THINGS)
    assert found.panoptic.ids.tolist() == [list(range(1, count + 1))]


def test_what_a_user_asks_of_objects_holds_for_queries():
    output = blobs(3, (64, 80))
    run = lambda **asked: find("QueryMasks", "panoptic")(  # noqa: E731
        output, (64, 80), crop=(64, 80), rule=asked_rule(ObjectRule(), asked), things=THINGS
    )[0]
    assert len(run(top=3).instances) == 3
    assert sum(one.is_thing for one in run(top=1, score=0.1).panoptic.segments) <= 1
    assert all(one.score >= 0.4 for one in run(score=0.4).instances)
    assert len(run(score=0.3).panoptic.segments) > len(run(score=0.97).panoptic.segments)
    assert len(run(overlap=0.1).instances) < len(run().instances)
    assert len(run(overlap=0.1, class_agnostic=True).instances) < len(run(overlap=0.1).instances)
    assert asked_rule(ObjectRule(), {"top": 300}).queries.pairs == 300
    assert asked_rule(ObjectRule(), {"top": 3}).queries.pairs == 100


def test_a_rule_with_numbers_out_of_range_is_told():
    told = rule_faults(
        ObjectRule(queries=QueryRule(segment_score=1.5, pairs=0, upsampled_to=(0, 3), segment_overlap=float("nan")))
    )
    assert [fault.partition(":")[0] for fault in told] == [
        "queries.segment_score",
        "queries.segment_overlap",
        "queries.pairs",
        "queries.upsampled_to",
        "queries.upsampled_to",
    ]
    with pytest.raises(UsageError, match="score: got 2"):
        asked_rule(ObjectRule(), {"score": 2.0})


def test_scores_of_classes_are_a_map_over_the_canvas():
    output = blobs(1, (64, 80))
    scores = scores_of(output, MASK2FORMER)
    assert scores.logits.shape == (2, K, 64, 80)
    whole = F.interpolate(output.mask_logits, size=(64, 80), mode="bilinear").sigmoid()
    torch.testing.assert_close(
        scores.logits, torch.einsum("nqk,nqhw->nkhw", output.class_logits.softmax(-1)[..., :-1], whole)
    )


def test_what_cannot_be_made_is_refused():
    output = blobs(1, (64, 80))
    with pytest.raises(TaskError, match="0 classes are said to be things or stuff"):
        find("QueryMasks", "panoptic")(output, (64, 80), crop=(64, 80))
    with pytest.raises(TaskError, match="upsampled bilinearly, not by 'nearest'"):
        find("QueryMasks", "instance")(output._replace(resample=Resample("nearest")), (64, 80), crop=(64, 80))
    with pytest.raises(DataError, match="not finite"):
        find("QueryMasks", "instance")(output._replace(class_logits=output.class_logits / 0), (64, 80), crop=(64, 80))
