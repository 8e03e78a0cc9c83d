"""The criterion of queries, beside a slow form: every mask as floats at full size, every assignment tried."""

from __future__ import annotations

import logging
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas import criteria
from segatlas.errors import CostError, UsageError
from segatlas.losses import LOSSES
from segatlas.ops.query_truth import truth_of
from segatlas.structures import InstancesTarget, QueryLayer, QueryMasks, SegmentsTarget

K, Q, STRIDE = 4, 5, 4
SIZE, CANVAS = (22, 30), (24, 32)
CPU = torch.device("cpu")


def output(seed: int = 0, count: int = 2, layers: int = 2, queries: int = Q) -> QueryMasks:
    draw = torch.Generator().manual_seed(seed)

    def layer() -> QueryLayer:
        maps = torch.randn(
            count, queries, CANVAS[0] // STRIDE, CANVAS[1] // STRIDE, generator=draw, dtype=torch.float64
        )
        return QueryLayer(
            torch.randn(count, queries, K + 1, generator=draw, dtype=torch.float64).requires_grad_(),
            (maps * 3).requires_grad_(),
        )

    aux = {f"layer_{index}": layer() for index in range(layers - 1)}
    return QueryMasks(*layer(), canvas=CANVAS, aux=aux)


def segments(seed: int = 0, void: bool = True, crowd: bool = True) -> SegmentsTarget:
    """Return four segments, the last of which is a crowd, in stripes, and a corner of void."""
    ids = np.repeat(np.repeat(np.random.default_rng(seed).integers(0, 4, (4, 5)), 6, 0), 6, 1)[: SIZE[0], : SIZE[1]]
    ids = ids.astype(np.int32)
    if void:
        ids[:7, 20:] = -1
    classes = np.array([2, 0, 2, 1])
    return SegmentsTarget(ids, classes, np.array([True, False, True, True]), np.array([False] * 3 + [crowd]))


def objects(seed: int = 0, padding: bool = True) -> InstancesTarget:
    """Return three overlapping rectangles and a crowd; the last columns are padding."""
    draw, masks = np.random.default_rng(seed), np.zeros((4, *SIZE), bool)
    for mask in masks:
        top, left = draw.integers(0, 10), draw.integers(0, 14)
        mask[top : top + draw.integers(5, 12), left : left + draw.integers(5, 12)] = True
    beyond = np.zeros(SIZE, bool)
    beyond[:, 26:] = padding
    return InstancesTarget(masks, np.array([3, 1, 1, 0]), np.array([False, False, False, True]), beyond)


def build(name: str = "query_points", **keys: Any) -> Any:
    loss = LOSSES[name]
    return criteria.build("QueryMasks", [loss(**{**loss.tiny, **keys})])


# ---- the slow form
def grow(mask: Any) -> torch.Tensor:
    return F.pad(torch.from_numpy(np.asarray(mask, np.float64)), (0, CANVAS[1] - SIZE[1], 0, CANVAS[0] - SIZE[0]))


def slow_truth(target: Any, ignore: bool) -> tuple[list[tuple[int, torch.Tensor]], torch.Tensor]:
    """Return (class, mask) of each object and what is judged, both as floats over the canvas."""
    if isinstance(target, SegmentsTarget):
        rows = [
            (int(k), target.ids == i)
            for i, (k, c) in enumerate(zip(target.classes, target.crowd, strict=True))
            if not c
        ]
        judged = (target.ids >= 0) & ~np.isin(target.ids, np.flatnonzero(target.crowd))
    elif isinstance(target, InstancesTarget):
        rows = [(int(k), m) for m, k, c in zip(*target[:3], strict=True) if not c]
        judged = ~target.masks[target.crowd].any(0) & ~target.padding
    else:
        labels = np.asarray(target)
        rows = [(int(k), labels == k) for k in np.unique(labels) if k != 255]
        judged = labels != 255
    whole = grow(judged) if ignore else torch.ones(CANVAS, dtype=torch.float64)
    return [(kind, grow(mask)) for kind, mask in rows if mask.any()], whole


def sample(maps: torch.Tensor, points: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    grid = (2 * points - 1)[None, :, None]
    return F.grid_sample(maps[None, None], grid, mode=mode, align_corners=False)[0, 0, :, 0]


def bce(x: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (F.binary_cross_entropy_with_logits(x, t, reduction="none") * w).sum() / w.sum().clamp(min=1)


def focal(x: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    p = x.sigmoid()
    right = p * t + (1 - p) * (1 - t)
    alpha = 0.25 * t + 0.75 * (1 - t)
    each = -alpha * (1 - right) ** 2 * right.log()
    return (each * w).sum() / w.sum().clamp(min=1)


def dice(x: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    p = x.sigmoid() * w
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + (t * w).sum() + 1)


def slow_loss(term: Any, given: QueryMasks, targets: Any, points: torch.Tensor) -> torch.Tensor:
    """Return the loss where every random point is one of `points` (P, 2), the same each time."""
    of_points = term.name == "query_points"
    pixel = bce if of_points else focal
    truths = [slow_truth(target, term.void == "ignore") for target in targets]
    count = max(sum(len(rows) for rows, _ in truths), 1)
    total = torch.zeros((), dtype=torch.float64)
    for layer in given.layers:
        wanted = torch.full(layer.class_logits.shape[:2], K)
        of_masks = torch.zeros((), dtype=torch.float64)
        for n, (rows, judged) in enumerate(truths):
            classes, masks = layer.class_logits[n], layer.mask_logits[n]
            costs = torch.zeros(len(masks), len(rows), dtype=torch.float64)
            for q, mask in enumerate(masks):
                for m, (kind, truth) in enumerate(rows):
                    if of_points:
                        x, t, w = sample(mask, points), sample(truth, points), sample(judged, points, "nearest")
                    else:
                        small = lambda map: F.interpolate(map[None, None], size=mask.shape, mode="nearest").flatten()  # noqa: E731, B023
                        x, t, w = mask.flatten(), small(truth), small(judged)
                    costs[q, m] = (term.mask_weight * pixel(x, t, w) + term.dice_weight * dice(x, t, w)).detach()
                    costs[q, m] -= term.class_weight * classes[q].softmax(0)[kind].detach()
            best = min(
                permutations(range(len(masks)), len(rows)),
                key=lambda chosen: sum(costs[q, m] for m, q in enumerate(chosen)),
            )
            for (kind, truth), q in zip(rows, best, strict=True):
                wanted[n, q] = kind
                if of_points:
                    sure = sample(masks[q], points).abs()
                    sure = torch.where(sample(judged, points, "nearest") > 0.5, sure, torch.inf)
                    chosen = sure.topk(int(term.important * term.points), largest=False).indices
                    at = torch.cat([points[chosen], points[: term.points - len(chosen)]])
                    x, t, w = sample(masks[q], at), sample(truth, at), sample(judged, at, "nearest")
                else:
                    x = F.interpolate(masks[q][None, None], size=CANVAS, mode="bilinear").flatten()
                    t, w = truth.flatten(), judged.flatten()
                of_masks = of_masks + (term.mask_weight * pixel(x, t, w) + term.dice_weight * dice(x, t, w)) / count
        weight = torch.ones(K + 1, dtype=torch.float64)
        weight[K] = term.none_weight
        of_classes = F.cross_entropy(layer.class_logits.transpose(1, 2), wanted, weight)
        total = total + term.class_weight * of_classes + of_masks
    return total


@pytest.fixture
def fixed_points(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Make every draw of points the same for all masks, so that the slow form has them too."""
    drawn = torch.rand(4000, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda rows, count, two, **_: drawn[:count].expand(rows, -1, -1).clone())
    return drawn


TARGETS = {
    "segments": (segments(0), segments(1)),
    "objects": (objects(0), objects(1)),
    "labels": torch.from_numpy(np.stack([segments(seed).labels for seed in (0, 1)])),
}


@pytest.mark.parametrize("void", ["ignore", "background"])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", ["query_points", "query_maps"])
def test_value_and_gradient_are_those_of_the_slow_form(name, kind, void, fixed_points):
    points = {"points": 96} if name == "query_points" else {}
    criterion = build(name, void=void, **points)
    given, term = output(), criterion.terms[0]
    drawn = fixed_points[:96] if name == "query_points" else fixed_points
    if name == "query_points":  # the slow form looks for unsure points among those of one draw
        term = term.model_copy(update={"oversample": 1.0})
        criterion = criteria.build("QueryMasks", [term])
    total, parts = criterion(given, TARGETS[kind])
    expected = slow_loss(term, given, TARGETS[kind], drawn)
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=1e-9)
    assert set(parts) == {"class", "mask", "dice"}
    assert float(term.total(parts)) == pytest.approx(float(total))
    tensors = [tensor for layer in given.layers for tensor in layer]
    for ours, theirs in zip(torch.autograd.grad(total, tensors), torch.autograd.grad(expected, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["query_points", "query_maps"])
def test_what_is_not_judged_changes_neither_loss_nor_gradient(name):
    criterion, one, other = build(name), output(1, layers=1), output(1, layers=1)
    target = segments(0, void=False)._replace(classes=np.array([2, 0, 2, 1]))
    target.ids[:16, 16:] = -1  # cells of the logits from row 0 to 2 and from column 5 on reach nothing else
    other.mask_logits.data[0, :, :3, 5:] += 30
    losses = []
    for given in (one, other):
        torch.manual_seed(3)
        losses.append(criterion(given, (target, objects()))[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=0)
    gradient = torch.autograd.grad(losses[1], other.mask_logits)[0]
    assert not gradient[0, :, :3, 5:].any()
    assert gradient[0, :, 4:].any()
    told = build(name, void="background")(other, (target, objects()))[0]
    assert torch.autograd.grad(told, other.mask_logits)[0][0, :, :3, 5:].any()


@pytest.mark.parametrize("name", ["query_points", "query_maps"])
def test_an_image_or_a_batch_without_objects_trains(name):
    nothing = InstancesTarget(np.zeros((0, *SIZE), bool), np.zeros(0, np.int64), np.zeros(0, bool))
    crowd_alone = objects()._replace(crowd=np.ones(4, bool))
    for targets in ((nothing, objects()), (nothing, nothing), (crowd_alone, nothing)):
        given = output(2)
        total, parts = build(name)(given, targets)
        assert total.isfinite()
        gradients = torch.autograd.grad(total, [given.class_logits, given.mask_logits])
        assert all(one.isfinite().all() for one in gradients)
        assert gradients[0].any()
    assert parts["mask"] == parts["dice"] == 0


def test_of_more_objects_than_queries_the_count_is_told_once_and_training_goes_on(caplog):
    masks = np.zeros((9, *SIZE), bool)
    for index, mask in enumerate(masks):
        mask[2 * index : 2 * index + 2] = True
    many = InstancesTarget(masks, np.arange(9) % K, np.zeros(9, bool))
    criterion, given = build(), output(3)
    with caplog.at_level(logging.WARNING, logger="segatlas"):
        for _ in range(3):
            total, _ = criterion(given, (many, objects()))
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "an image has 9 objects, and the network 5 queries: 4 of them are not learned"
    ]
    total.backward()
    assert given.mask_logits.grad is not None
    assert (given.mask_logits.grad[0].flatten(1).abs().sum(1) > 0).all()  # every query has an object


def test_two_thousand_objects_and_one_that_fills_the_image_are_learned():
    draw = np.random.default_rng(0)
    masks = np.zeros((2000, *SIZE), bool)
    masks[np.arange(2000), draw.integers(0, SIZE[0], 2000), draw.integers(0, SIZE[1], 2000)] = True
    full = InstancesTarget(np.ones((1, *SIZE), bool), np.zeros(1, np.int64), np.zeros(1, bool))
    many = InstancesTarget(masks, draw.integers(0, K, 2000), np.zeros(2000, bool))
    total, _ = build()(output(4), (many, full))
    assert total.isfinite()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["query_points", "query_maps"])
def test_costs_that_are_no_numbers_stop_and_name_the_image(name, value):
    given = output(5)
    given.mask_logits.data[1, 2] = value
    with pytest.raises(CostError, match="costs of matching queries with true objects are not finite") as caught:
        build(name)(given, (objects(), objects()))
    assert caught.value.images == (1,)


def test_a_term_on_an_earlier_layer_is_of_that_layer_alone():
    given, target = output(6, layers=3), (objects(), objects(1))
    values = []
    for on, truth in (("aux.layer_1", given), ("logits", given._replace(aux={}))):
        torch.manual_seed(0)
        values.append(build(on=on)(truth, target)[0])
    alone = QueryMasks(*given.aux["layer_1"], canvas=CANVAS)
    torch.manual_seed(0)
    torch.testing.assert_close(build()(alone, target)[0], values[0])
    assert not torch.isclose(values[0], values[1])
    with pytest.raises(UsageError, match=r"no such auxiliary head; it has: aux\.layer_0, aux\.layer_1"):
        build(on="aux.layer_7")(given, target)


def test_truths_that_do_not_fit_are_refused():
    given = output(7)
    with pytest.raises(UsageError, match="1 truths for 2 images"):
        build()(given, (objects(),))
    with pytest.raises(UsageError, match="does not fit on the canvas"):
        build()(given, torch.zeros(2, 40, 40, dtype=torch.uint8))
    with pytest.raises(UsageError, match="a true class is 9, but the network has 4 classes"):
        build()(given, torch.full((2, *SIZE), 9, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"which gives a tensor \(2, 5, 6, 8\); it takes classes and masks of queries"):
        LOSSES["query_points"]()(given.mask_logits, (objects(),))


def test_half_precision_is_computed_in_float32():
    given = output(8, layers=1)
    half = given._replace(class_logits=given.class_logits.bfloat16(), mask_logits=given.mask_logits.bfloat16())
    total, _ = build()(half, (objects(), objects()))
    assert total.dtype == torch.float32


def test_a_truth_is_read_at_points_as_a_map_of_floats_would_be():
    points = torch.rand(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for target in (segments(0), objects(0), TARGETS["labels"][0]):
        truth = truth_of(target, CANVAS, CPU, void_is_ignored=True)
        rows, judged = slow_truth(target, ignore=True)
        masks = torch.stack([mask for _, mask in rows])
        assert truth.classes.tolist() == [kind for kind, _ in rows]
        expected = torch.stack([sample(mask, points) for mask in masks])
        torch.testing.assert_close(truth.at(points), expected)
        which = torch.tensor([1, 0, 1])
        torch.testing.assert_close(truth.own(which, points.expand(3, -1, -1)), expected[which])
        assert torch.equal(truth.judged_at(points), sample(judged, points, "nearest") > 0.5)
        assert torch.equal(truth.whole(which), masks[which] > 0)
