from __future__ import annotations

import numpy as np
import torch

from segatlas.data.collate import collate
from segatlas.data.sample import Source
from segatlas.data.transforms import PreparedSample


def prepared(height: int, width: int, value: int, **fields: object) -> PreparedSample:
    image = np.arange(height * width * 3, dtype=np.float32).reshape(height, width, 3) + value
    label = np.full((height, width), value, np.uint8)
    return PreparedSample(**{"image": image, "label": label, "key": f"k{value}", **fields})


def test_equal_sizes_are_stacked_channels_last() -> None:
    samples = [prepared(4, 6, 1), prepared(4, 6, 2)]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 4, 6)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == torch.uint8
    assert batch.keys == ["k1", "k2"]
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.images[row].numpy(), sample.image.transpose(2, 0, 1))
        np.testing.assert_array_equal(batch.labels[row].numpy(), sample.label)


def test_smaller_samples_are_padded_right_and_bottom() -> None:
    batch = collate([prepared(4, 3, 1), prepared(2, 6, 2)])
    assert batch.images.shape == (2, 3, 4, 6)
    assert batch.labels.tolist() == [[[1] * 3 + [255] * 3] * 4, [[2] * 6] * 2 + [[255] * 6] * 2]
    assert (batch.images[0, :, :, 3:] == 0).all()
    assert (batch.images[1, :, 2:] == 0).all()
    np.testing.assert_array_equal(batch.images[1, :, :2].numpy(), prepared(2, 6, 2).image.transpose(2, 0, 1))


def test_labels_may_have_another_size_than_images() -> None:
    batch = collate([prepared(4, 6, 1, label=np.zeros((8, 12), np.uint8))])
    assert batch.images.shape[2:] == (4, 6)
    assert batch.labels.shape == (1, 8, 12)


def test_sources_are_stacked_by_kind() -> None:
    sources = {
        "channels": Source(array=np.full((2, 3, 5), 7, np.uint16)),
        "prior": Source(array=np.full((2, 3), 4, np.uint8), kind="label"),
    }
    wider = {
        "channels": Source(array=np.full((2, 4, 5), 8, np.uint16)),
        "prior": Source(array=np.full((2, 4), 5, np.uint8), kind="label"),
    }
    batch = collate([prepared(2, 3, 0, sources=sources), prepared(2, 4, 0, sources=wider)])
    assert batch.sources["channels"].shape == (2, 5, 2, 4)
    assert batch.sources["channels"].dtype == torch.float32
    assert batch.sources["channels"][:, 0, 0].tolist() == [[7, 7, 7, 0], [8, 8, 8, 8]]
    assert batch.sources["prior"][:, 0].tolist() == [[4, 4, 4, 255], [5, 5, 5, 5]]
