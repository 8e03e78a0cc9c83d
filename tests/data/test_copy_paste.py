"""Copy-paste lays objects of a second sample over the first, as a function of (seed, epoch, index)."""

from __future__ import annotations

import numpy as np
import pytest

from segatlas.config.schema import DataConfig
from segatlas.config.transforms import TransformsConfig
from segatlas.data import create_dataset
from segatlas.data.shapes import make_shapes
from segatlas.data.stream import SampleStream
from segatlas.data.transforms import Pipeline, Placement, PreparedSample
from segatlas.data.transforms.copy_paste import CopyPaste, copy_paste_of
from segatlas.data.transforms.targets import visible, warp_target
from segatlas.errors import UsageError
from segatlas.structures import InstancesTarget, SegmentsTarget, SemanticTarget

SIZE = (6, 8)
ALL = CopyPaste(probability=1.0, objects=1.0)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def prepared(target: object, value: float) -> PreparedSample:
    return PreparedSample(image=np.full((*SIZE, 3), value, np.float32), target=target, key=str(value))


def instances(*masks: np.ndarray, classes: list[int], crowd: list[bool] | None = None) -> InstancesTarget:
    return InstancesTarget(np.array(masks), np.array(classes), np.array(crowd or [False] * len(masks)))


def test_pasted_objects_hide_what_lies_below_and_crowds_are_not_pasted():
    base = prepared(instances(box(0, 0, 3, 4), box(3, 0, 5, 2), classes=[0, 1]), 1.0)
    other = prepared(instances(box(0, 2, 6, 6), box(0, 0, 1, 1), classes=[2, 3], crowd=[False, True]), 2.0)
    result = ALL.apply(base, other, np.random.default_rng(0))
    assert result.target.classes.tolist() == [0, 1, 2]
    assert np.array_equal(result.target.masks[0], box(0, 0, 3, 2))
    assert np.array_equal(result.target.masks[2], box(0, 2, 6, 6))
    assert np.array_equal(result.image[..., 0] == 2, box(0, 2, 6, 6))
    assert base.image.max() == 1  # the sample itself is as it was


def test_an_object_that_is_hidden_whole_is_gone():
    base = prepared(instances(box(1, 1, 3, 3), classes=[0]), 1.0)
    other = prepared(instances(box(0, 0, 6, 8), classes=[4]), 2.0)
    assert ALL.apply(base, other, np.random.default_rng(0)).target.classes.tolist() == [4]


def test_segments_keep_only_what_is_visible():
    ids = np.zeros(SIZE, np.int32)
    ids[1:3, 1:3], ids[5, 7] = 1, -1
    base = prepared(SegmentsTarget(ids, np.array([5, 0]), np.array([False, True]), np.array([False, False])), 1.0)
    over = np.ones(SIZE, np.int32)
    over[:4, :4] = 0
    things = np.array([True, False])
    other = prepared(SegmentsTarget(over, np.array([3, 6]), things, np.array([False, False])), 2.0)
    target = ALL.apply(base, other, np.random.default_rng(0)).target
    assert target.classes.tolist() == [5, 3]
    assert target.things.tolist() == [False, True]
    expected = np.where(box(0, 0, 4, 4), 1, 0)
    expected[5, 7] = -1
    assert np.array_equal(target.ids, expected)


def test_samples_of_other_sizes_lie_with_their_top_left_corners_on_one_another():
    base = prepared(instances(box(0, 0, 1, 1), classes=[0]), 1.0)
    small = InstancesTarget(np.ones((1, 3, 20), bool), np.array([1]), np.array([False]))
    other = PreparedSample(image=np.full((3, 20, 3), 2, np.float32), target=small, key="small")
    result = ALL.apply(base, other, np.random.default_rng(0))
    assert np.array_equal(result.target.masks[-1], box(0, 0, 3, 8))
    assert result.image.shape == (*SIZE, 3)


def test_masks_of_classes_are_refused():
    semantic = prepared(SemanticTarget(np.zeros(SIZE, np.uint8)), 1.0)
    with pytest.raises(UsageError, match=r"transforms\.copy_paste"):
        ALL.apply(semantic, semantic, np.random.default_rng(0))


def test_objects_and_segments_that_a_crop_leaves_out_vanish():
    crop = Placement(matrix=np.array([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]]), size=(6, 4))
    both = instances(box(0, 0, 3, 3), box(2, 3, 5, 7), classes=[7, 8])
    moved = warp_target(both, crop)
    assert moved.classes.tolist() == [8]
    assert np.array_equal(moved.masks[0], box(2, 0, 5, 3)[:, :4])
    ids = np.where(box(0, 0, 3, 3), 0, np.where(box(2, 3, 5, 7), 1, -1)).astype(np.int32)
    segments = SegmentsTarget(ids, np.array([7, 8]), np.array([True, True]), np.array([False, True]))
    cut = warp_target(segments, crop)
    assert (cut.classes.tolist(), cut.crowd.tolist()) == ([8], [True])
    assert np.array_equal(cut.ids, np.where(box(2, 0, 5, 3)[:, :4], 0, -1))
    assert visible(segments) is segments


def test_large_scale_jitter_is_a_fit_a_scale_and_a_crop_at_the_end():
    transforms = TransformsConfig(
        resize="fit:64x64", scale=(0.1, 2.0), scale_draw="uniform", crop=(64, 64), crop_padding="end", flip=0.0
    )
    pipeline = Pipeline.from_config(transforms, (0.0,) * 3, (1.0,) * 3, 255.0, 3)
    low = high = 0
    for number in range(200):
        placement = pipeline.geometry.draw(np.random.default_rng(number), (40, 80))
        factor = 1 / placement.matrix[0, 0] * 80 / 64
        assert 0.09 < factor < 2.02
        assert placement.size == (64, 64)
        low, high = low + (factor < 0.575), high + (factor > 1.525)
        if factor < 1:
            assert placement.matrix[:2, 2].max() <= 0.01  # the image lies in the corner, padding right and below
    assert 30 < low < 70
    assert 30 < high < 70


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    root = make_shapes(tmp_path_factory.mktemp("paste") / "shapes", train=5, val=1, test=1, size=(48, 64))
    return {target: create_dataset(DataConfig(name="shapes", root=str(root)), "train", target=target)
            for target in ("InstancesTarget", "SegmentsTarget")}  # fmt: skip


@pytest.mark.parametrize("target", ["InstancesTarget", "SegmentsTarget"])
def test_a_pasted_sample_depends_on_seed_epoch_and_index_alone(data, target):
    transforms = TransformsConfig(crop=(40, 40), scale=(0.5, 1.5), copy_paste={"probability": 0.7})
    pipeline = Pipeline.from_config(transforms, (0.0,) * 3, (1.0,) * 3, 255.0, 3)
    paste = copy_paste_of(transforms)
    stream, plain = SampleStream(data[target], pipeline, 3, paste), SampleStream(data[target], pipeline, 3)
    addresses = [(epoch, index) for epoch in range(2) for index in range(5)]
    first = [stream[address] for address in addresses]
    again = [stream[address] for address in reversed(addresses)][::-1]
    changed = 0
    for one, other, address in zip(first, again, addresses, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.target, other.target, strict=True))
        assert np.array_equal(one.image, other.image)
        changed += not np.array_equal(one.image, plain[address].image)
        if target == "InstancesTarget":
            assert one.target.masks.any(axis=(1, 2)).all()
        else:
            assert set(np.unique(one.target.ids).tolist()) - {-1} == set(range(len(one.target.classes)))
    assert 2 <= changed < 10
