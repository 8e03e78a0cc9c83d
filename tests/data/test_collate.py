from __future__ import annotations

import numpy as np
import torch

from segatlas.data.collate import collate
from segatlas.data.sample import Sample
from segatlas.data.transforms import Pipeline, PreparedSample
from segatlas.data.transforms.geometry import Crop, Geometry
from segatlas.structures import InstancesTarget, SegmentsTarget, SemanticTarget


def prepared(height: int, width: int, value: int, **fields: object) -> PreparedSample:
    image = np.arange(height * width * 3, dtype=np.float32).reshape(height, width, 3) + value
    label = np.full((height, width), value, np.uint8)
    return PreparedSample(**{"image": image, "target": SemanticTarget(label), "key": f"k{value}", **fields})


def test_equal_sizes_are_stacked_channels_last() -> None:
    samples = [prepared(4, 6, 1), prepared(4, 6, 2)]
    batch = collate(samples)
    assert batch.inputs.image.shape == (2, 3, 4, 6)
    assert batch.inputs.image.dtype == torch.float32
    assert batch.inputs.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.dtype == torch.uint8
    assert batch.keys == ("k1", "k2")
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.inputs.image[row].numpy(), sample.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(batch.targets[row].numpy(), sample.label)


def test_smaller_samples_are_padded_right_and_bottom() -> None:
    batch = collate([prepared(4, 3, 1), prepared(2, 6, 2)])
    assert batch.inputs.image.shape == (2, 3, 4, 6)
    assert batch.targets.tolist() == [[[1] * 3 + [255] * 3] * 4, [[2] * 6] * 2 + [[255] * 6] * 2]
    assert (batch.inputs.image[0, :, :, 3:] == 0).all()
    assert (batch.inputs.image[1, :, 2:] == 0).all()
    np.testing.assert_array_equal(batch.inputs.image[1, :, :2].numpy(), prepared(2, 6, 2).image.transpose(2, 0, 1))


def test_labels_may_have_another_size_than_images() -> None:
    batch = collate([prepared(4, 6, 1, target=SemanticTarget(np.zeros((8, 12), np.uint8)))])
    assert batch.inputs.image.shape[2:] == (4, 6)
    assert batch.targets.shape == (1, 8, 12)


def test_the_sizes_before_padding_are_kept() -> None:
    assert collate([prepared(4, 3, 1), prepared(2, 6, 2)]).sizes == ((4, 3), (2, 6))


def test_sources_are_stacked_by_their_axes_with_flags_of_which_are_there() -> None:
    sources = {"heights": np.full((2, 3, 5), 7, np.float32), "prior": np.full((2, 3), 4, np.uint8)}
    wider = {"heights": np.full((2, 4, 5), 8, np.float32), "prior": np.full((2, 4), 5, np.uint8)}
    batch = collate(
        [
            prepared(2, 3, 0, sources=sources, present={"heights": True}),
            prepared(2, 4, 0, sources=wider, present={"heights": False}),
        ]
    )
    assert batch.inputs.sources["heights"].shape == (2, 5, 2, 4)
    assert batch.inputs.sources["heights"].dtype == torch.float32
    assert batch.inputs.sources["heights"][:, 0, 0].tolist() == [[7, 7, 7, 0], [8, 8, 8, 8]]
    assert batch.inputs.sources["prior"][:, 0].tolist() == [[4, 4, 4, 255], [5, 5, 5, 5]]
    assert {name: flags.tolist() for name, flags in batch.inputs.present.items()} == {"heights": [True, False]}


def test_instances_are_one_target_a_sample_padded_to_the_batch() -> None:
    def objects(height: int, width: int, count: int) -> InstancesTarget:
        return InstancesTarget(np.ones((count, height, width), bool), np.arange(count), np.zeros(count, bool))

    batch = collate([prepared(4, 3, 1, target=objects(4, 3, 2)), prepared(2, 6, 2, target=objects(2, 6, 0))])
    first, second = batch.targets
    assert first.masks.shape == (2, 4, 6)
    assert first.masks.sum().item() == 2 * 4 * 3
    assert first.classes.tolist() == [0, 1]
    assert second.masks.shape == (0, 4, 6)
    beyond = np.ones((4, 6), bool)
    beyond[:, :3] = False
    assert np.array_equal(first.padding, beyond)
    assert not second.padding[:2].any()
    assert second.padding[2:].all()
    same = collate([prepared(4, 3, 1, target=objects(4, 3, 2))] * 2)
    assert [one.padding for one in same.targets] == [None, None]


def test_segments_are_padded_with_no_segment() -> None:
    tables = (np.array([3]), np.array([True]), np.array([False]))
    small = SegmentsTarget(np.zeros((2, 2), np.int32), *tables)
    batch = collate(
        [prepared(2, 2, 1, target=small), prepared(3, 2, 2, target=small._replace(ids=np.ones((3, 2), "i4")))]
    )
    assert batch.targets[0].ids.tolist() == [[0, 0], [0, 0], [-1, -1]]
    assert batch.targets[0].ids.dtype == torch.int32
    assert batch.targets[1].classes.tolist() == [3]


def test_what_lies_beyond_images_is_padding_and_black_pixels_are_not() -> None:
    pipeline = Pipeline(
        geometry=Geometry(before=(), crop=Crop(size=(6, 8), pad_end=True), after=()), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    black = [Sample(image=np.zeros((*size, 3), np.uint8), target=None, key="a") for size in ((6, 8), (4, 8))]
    whole, low = (pipeline(one, np.random.default_rng(0)) for one in black)
    assert whole.padding is None
    assert collate([whole]).padding is None
    assert collate([whole]).valid.all()
    batch = collate([whole, low])
    assert batch.valid.tolist() == [[[True] * 8] * 6, [[True] * 8] * 4 + [[False] * 8] * 2]
    uneven = collate([prepared(2, 3, 5), prepared(4, 2, 6)]).valid
    assert uneven[0].tolist() == [[True] * 3] * 2 + [[False] * 3] * 2
    assert uneven[1].tolist() == [[True, True, False]] * 4
