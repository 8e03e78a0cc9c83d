"""F1 of objects against an obvious version in plain loops."""

import math

import numpy as np
import pytest

from segatlas.errors import DataError
from segatlas.metrics import create
from segatlas.metrics.instance_f1 import InstanceF1
from segatlas.structures import Instance, InstancesTarget, Result

CLASSES = ("disc", "square")


def scene(seed):
    """Return a result and a truth with objects that are right, shifted, of a wrong class, missed and made up."""
    rng = np.random.default_rng(seed)
    masks, kinds, objects = [], [], []
    for _ in range(int(rng.integers(0, 6))):
        top, left, side = (int(n) for n in rng.integers((0, 0, 4), (24, 24, 9)))
        mask = np.zeros((32, 32), bool)
        mask[top : top + side, left : left + side] = True
        kind = int(rng.integers(2))
        masks.append(mask)
        kinds.append(kind)
        for _ in range(int(rng.integers(0, 3))):
            moved = np.roll(mask, tuple(rng.integers(-3, 4, 2)), (0, 1))
            guess = kind if rng.random() < 0.8 else 1 - kind
            objects.append(Instance(mask=moved, class_index=guess, score=float(rng.random())))
    truth = np.array(masks, bool).reshape(-1, 32, 32)
    return Result(objects=tuple(objects)), InstancesTarget(truth, np.array(kinds, np.int64), np.zeros(len(kinds), bool))


def obvious(scenes, kind):
    """Return TP, FP, FN of a class."""
    tp = fp = fn = 0
    for result, target in scenes:
        free = [index for index in range(len(target.classes)) if target.classes[index] == kind]
        for one in sorted(result.instances, key=lambda one: -one.score):
            if one.class_index != kind:
                continue
            best, best_iou = None, 0.0
            for index in free:
                both = (one.mask & target.masks[index]).sum()
                iou = both / (one.mask | target.masks[index]).sum()
                if iou > best_iou:
                    best, best_iou = index, iou
            if best is not None and best_iou >= 0.5:
                free.remove(best)
                tp += 1
            else:
                fp += 1
        fn += len(free)
    return tp, fp, fn


def test_counts_are_those_of_the_obvious_version_and_do_not_depend_on_who_counted_what():
    scenes = [scene(seed) for seed in range(40)]
    whole, half, rest = (create(("instance_f1",), CLASSES) for _ in range(3))
    for index, (result, target) in enumerate(scenes):
        whole.update(result, target)
        (half if index % 3 else rest).update(result, target)
    half.merge(rest.state())
    scores = whole.compute()
    assert half.compute().whole == scores.whole
    counts = [obvious(scenes, kind) for kind in range(2)]
    tp, fp, fn = np.sum(counts, axis=0)
    assert min(tp, fp, fn) > 0
    assert scores.whole["instance_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    assert scores.whole["instance_precision"] == pytest.approx(tp / (tp + fp), abs=1e-12)
    assert scores.whole["instance_recall"] == pytest.approx(tp / (tp + fn), abs=1e-12)


def test_the_best_threshold_is_that_of_trying_them_all():
    scenes = [scene(seed) for seed in range(10)]
    counter = create(("instance_f1",), CLASSES)
    for result, target in scenes:
        counter.update(result, target)
    whole = counter.compute().whole
    tried = {}
    for threshold in np.arange(1001) / 1000:
        kept = [
            (Result(objects=tuple(one for one in result.instances if one.score >= threshold)), target)
            for result, target in scenes
        ]
        tp, fp, fn = np.sum([obvious(kept, kind) for kind in range(2)], axis=0)
        tried[float(threshold)] = 2 * tp / max(2 * tp + fp + fn, 1)
    best = max(tried.values())
    assert whole["best_f1"] == pytest.approx(best, abs=1e-12)
    assert whole["best_f1"] > whole["instance_f1"] == pytest.approx(tried[0.0], abs=1e-12)
    assert whole["best_score"] == max(threshold for threshold, f1 in tried.items() if f1 == best)


def test_an_object_on_a_crowd_is_neither_right_nor_wrong():
    mask = np.zeros((1, 8, 8), bool)
    mask[:, :4] = True
    target = InstancesTarget(mask, np.array([0]), np.array([True]))
    counter = InstanceF1(CLASSES)
    inside = Instance(mask=mask[0], class_index=0, score=0.9)
    assert math.isnan(counter.update(Result(objects=(inside,)), target))
    outside = Instance(mask=~mask[0], class_index=0, score=0.9)
    assert counter.update(Result(objects=(outside,)), target) == 0


def test_an_image_without_any_object_has_no_score_of_its_own():
    empty = InstancesTarget(np.zeros((0, 8, 8), bool), np.zeros(0, np.int64), np.zeros(0, bool))
    assert math.isnan(InstanceF1(CLASSES).update(Result(objects=()), empty))


def test_a_mask_of_another_size_is_told():
    empty = InstancesTarget(np.zeros((0, 8, 8), bool), np.zeros(0, np.int64), np.zeros(0, bool))
    one = Instance(mask=np.ones((4, 4), bool), class_index=0, score=1.0)
    with pytest.raises(DataError, match=r"a predicted mask is \(4, 4\), the true ones are \(8, 8\)"):
        InstanceF1(CLASSES).update(Result(objects=(one,)), empty)
