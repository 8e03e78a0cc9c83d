"""Average precision of masks is pycocotools' to 1e-9, whatever the crowds, sizes, equal scores and numbers kept."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest

from segatlas.errors import DataError
from segatlas.metrics import average_precision as module
from segatlas.metrics.average_precision import METRIC, SIZES, AveragePrecision, edge_of, objects_of
from segatlas.metrics.object_pairs import RANGES
from segatlas.structures import Instance, InstancesTarget, Result, Rle, SegmentsTarget
from segatlas.structures.rle import ious
from segatlas.testing import check_metric

CLASSES = ("disc", "square", "ring", "never")
SIZE = (120, 160)


def disc(rng, largest):
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    radius = rng.uniform(2, largest)
    return np.hypot(rows - rng.uniform(0, SIZE[0]), columns - rng.uniform(0, SIZE[1])) <= radius


def scene(seed, digits=2):
    """Return objects found and true: shifted, doubled, of wrong classes, made up, on crowds, of every size."""
    rng = np.random.default_rng(seed)
    masks, kinds, crowd, found = [], [], [], []
    for _ in range(int(rng.integers(0, 7))):
        mask = disc(rng, 12 if rng.random() < 0.5 else 70)
        if not mask.any():
            continue
        masks.append(mask)
        kinds.append(int(rng.integers(3)))
        crowd.append(rng.random() < 0.2)
        for _ in range(int(rng.integers(0, 4))):
            moved = np.roll(mask, tuple(rng.integers(-2, 3, 2)), (0, 1))
            found.append((moved, kinds[-1] if rng.random() < 0.8 else int(rng.integers(3))))
    found += [(disc(rng, 40), int(rng.integers(3))) for _ in range(int(rng.integers(0, 4)))]
    objects = tuple(
        Instance(mask=mask, class_index=kind, score=round(float(rng.random()), digits)) for mask, kind in found
    )
    truth = np.array(masks, bool).reshape(-1, *SIZE)
    return Result(objects=objects), InstancesTarget(truth, np.array(kinds, np.int64), np.array(crowd, bool))


def theirs(scenes, *, most=100, with_classes=True, edges=False):
    """Return pycocotools' precision and recall; boundaries by its rules with overlaps put in place of its own."""
    module = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    images = [{"id": index + 1, "height": SIZE[0], "width": SIZE[1]} for index in range(len(scenes))]
    true, found = [], []
    for index, (result, target) in enumerate(scenes):
        for mask, kind, crowd in zip(*target, strict=True):
            code = Rle.of(mask).compressed()
            entry = {"image_id": index + 1, "category_id": int(kind) + 1, "segmentation": code, "iscrowd": int(crowd)}
            true.append({**entry, "id": len(true) + 1, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]})
        for one in result.instances:
            entry = {"image_id": index + 1, "category_id": one.class_index + 1, "score": one.score}
            found.append({**entry, "segmentation": one.rle.compressed()})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = module.COCO()
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
        coco.dataset = {"images": images, "annotations": true, "categories": categories}
        coco.createIndex()
        judge = evaluation.COCOeval(coco, coco.loadRes(found), "segm")
        judge.params.maxDets = [1, min(10, most), most]
        judge.params.useCats = int(with_classes)
        if edges:
            judge.computeIoU = with_edges(judge, judge.computeIoU)
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"], judge.eval["recall"]


def with_edges(judge, plain):
    def computed(image, category):
        shared = plain(image, category)
        if not len(shared):
            return shared
        found = sorted(judge._dts[image, category], key=lambda one: -one["score"])[: judge.params.maxDets[-1]]
        groups = (found, judge._gts[image, category])
        own, other = ([edge_of(Rle.read(one["segmentation"]), 0.02) for one in group] for group in groups)
        return np.minimum(shared, ious(own, other, [bool(one["iscrowd"]) for one in groups[1]]))

    return computed


def counted(scenes, **options):
    counter = AveragePrecision(CLASSES, **options)
    for result, target in scenes:
        counter.update(result, target)
    return counter


def mean(values):
    return values[values > -1].mean()


@pytest.mark.parametrize("most", [100, 3, 1])
def test_precision_and_recall_are_those_of_pycocotools_at_every_iou_size_and_number(most):
    scenes = [scene(seed) for seed in range(60)]
    counter = counted(scenes, max_detections=most)
    for name, options in {"": {}, "any_": {"with_classes": False}, "edge_": {"edges": True}}.items():
        precision, recall = theirs(scenes, most=most, **options)
        ours, our_recall = counter.curves(name)
        assert precision.max() > 0.3
        assert np.abs(ours - precision[..., -1]).max() < 1e-9
        if most == 100:
            assert np.abs(our_recall - np.moveaxis(recall, -1, 0)).max() < 1e-9


def test_the_printed_numbers_are_those_of_pycocotools():
    scenes = [scene(seed) for seed in range(40)]
    precision, recall = theirs(scenes)
    rows = counted(scenes).compute()
    expected = {
        "ap": mean(precision[:, :, :, 0, 2]),
        "ap50": mean(precision[0, :, :, 0, 2]),
        "ap75": mean(precision[5, :, :, 0, 2]),
        "ar_1": mean(recall[:, :, 0, 0]),
        "ar_10": mean(recall[:, :, 0, 1]),
        "ar": mean(recall[:, :, 0, 2]),
    }
    for area, size in enumerate(SIZES[1:], start=1):
        expected[f"ap_{size}"] = mean(precision[:, :, :, area, 2])
        expected[f"ar_{size}"] = mean(recall[:, :, area, 2])
    expected["class_agnostic_ap"] = mean(theirs(scenes, with_classes=False)[0][..., 0, 2])
    expected["boundary_ap"] = mean(theirs(scenes, edges=True)[0][..., 0, 2])
    assert {name: rows.whole[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    for kind in range(3):
        assert rows.per_class["ap"][kind] == pytest.approx(precision[:, :, kind, 0, 2].mean(), abs=1e-9)
    assert math.isnan(rows.per_class["ap"][3])


def test_more_than_a_hundred_objects_count_where_more_are_asked_for():
    masks = np.zeros((150, 60, 60), bool)
    for index in range(150):
        masks[index, index // 15 * 6 : index // 15 * 6 + 3, index % 15 * 4 : index % 15 * 4 + 3] = True
    target = InstancesTarget(masks, np.zeros(150, np.int64), np.zeros(150, bool))
    found = Result(objects=tuple(Instance(mask=mask, class_index=0, score=0.9) for mask in masks))
    assert counted([(found, target)]).compute().whole["ap"] == pytest.approx(67 / 101)
    assert counted([(found, target)], max_detections=500).compute().whole["ap"] == pytest.approx(1)


def test_counts_of_several_processes_are_those_of_one_and_all_promises_of_metrics_are_kept():
    scenes = [scene(seed) for seed in range(30)]
    half = counted(scenes[:11])
    half.merge(counted(scenes[11:]).state())
    assert half.compute().whole == counted(scenes).compute().whole
    check_metric(METRIC, target="InstancesTarget", pairs=[scene(seed, 12) for seed in range(4)], classes=CLASSES)


@pytest.mark.parametrize(("objects", "flags"), [(1, 1), (40, 200)])
def test_neither_the_images_nor_the_classes_that_are_looked_at_in_one_go_change_a_number(objects, flags, monkeypatch):
    scenes = [scene(seed) for seed in range(20)]
    small = Result(objects=(Instance(mask=np.ones((9, 7), bool), class_index=0, score=0.7),))
    scenes.append((small, InstancesTarget(np.ones((1, 9, 7), bool), np.zeros(1, np.int64), np.zeros(1, bool))))
    expected = counted(scenes)
    monkeypatch.setattr(module, "AT_ONCE", objects)
    monkeypatch.setattr(module, "PIECE", flags)
    found = counted(scenes)
    assert sum(map(len, expected.state().values())) == sum(map(len, found.state().values()))
    for name in ("", "any_", "edge_"):
        for one, other in zip(found.curves(name), expected.curves(name), strict=True):
            assert np.array_equal(one, other)


def test_things_of_a_panoptic_truth_are_objects():
    ids = np.full(SIZE, -1, np.int32)
    ids[:40], ids[40:80, :30], ids[90:, 50:] = 0, 1, 2
    flags = np.array([False, True, True]), np.array([False, False, True])
    true = objects_of(SegmentsTarget(ids, np.array([2, 0, 1]), *flags))
    assert [one.area for one in true.masks] == [1200, 3300]
    assert (true.kinds.tolist(), true.crowd.tolist()) == ([0, 1], [False, True])


def test_images_without_objects_on_either_side_are_counted():
    none = InstancesTarget(np.zeros((0, *SIZE), bool), np.zeros(0, np.int64), np.zeros(0, bool))
    assert math.isnan(counted([(Result(objects=()), none)]).compute().whole["ap"])
    result, target = scene(3)
    alone = counted([(result, none), (Result(objects=()), target)]).compute()
    assert alone.whole["ap"] == 0
    assert sum(alone.per_class["true_objects"]) == (~target.crowd).sum()


def test_an_object_may_fill_the_image_and_an_image_be_one_pixel():
    for size in (SIZE, (1, 1)):
        mask = np.ones((1, *size), bool)
        target = InstancesTarget(mask, np.zeros(1, np.int64), np.zeros(1, bool))
        found = Result(objects=(Instance(mask=mask[0], class_index=0, score=1.0),))
        whole = counted([(found, target)]).compute().whole
        assert whole["ap"] == pytest.approx(1)
        assert whole["boundary_ap"] == pytest.approx(1)


def test_two_thousand_objects_of_an_image_are_counted():
    masks = []
    for index in range(2000):
        mask = np.zeros((200, 200), bool)
        mask[index // 40 * 4 : index // 40 * 4 + 3, index % 40 * 5 : index % 40 * 5 + 4] = True
        masks.append(Rle.of(mask))
    target = InstancesTarget(tuple(masks), np.arange(2000) % 3, np.zeros(2000, bool))
    objects = tuple(Instance(mask=mask, class_index=index % 3, score=index / 2000) for index, mask in enumerate(masks))
    counter = counted([(Result(objects=objects), target)], max_detections=2000)
    assert counter.compute().whole["ap"] == pytest.approx(1)
    assert RANGES[1, 1] == 1024


def test_what_does_not_fit_is_told_and_nothing_is_counted():
    _, target = scene(3)
    good = {"mask": np.ones(SIZE, bool), "class_index": 0, "score": 0.5}
    for change, told in (
        ({"mask": np.ones((4, 4), bool)}, "masks of 4 x 4 and 120 x 160"),
        ({"class_index": 9}, r"class 9; expected 0\.\.3"),
        ({"score": math.nan}, "no number for its score"),
    ):
        counter = AveragePrecision(CLASSES)
        with pytest.raises(DataError, match=told):
            counter.update(Result(objects=(Instance(**{**good, **change}),)), target)
        assert not counter.state()["positives"].any()


def test_the_edge_of_a_mask_is_what_is_near_its_outside_or_the_frame():
    mask = np.zeros((50, 60), bool)
    mask[10:50, 5:40] = True
    mask[20:23, 20:24] = False
    slow = np.zeros_like(mask)
    padded = np.pad(mask, 2)
    for row, column in np.argwhere(mask):
        slow[row, column] = not padded[row : row + 5, column : column + 5].all()
    assert np.array_equal(edge_of(Rle.of(mask), 2 / math.hypot(50, 60)).bitmap(), slow)
