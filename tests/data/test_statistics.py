"""Statistics of a split against slow obvious ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import broken

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.statistics import (
    automatic_weights,
    count_classes,
    count_occurrences,
    describe,
    median_frequency_weights,
)
from segatlas.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = broken.write_sound(tmp_path, {"train": 3, "val": 1}, classes=3)
    (root / "classes.json").write_text('["ground", "disc", "other", "nowhere"]')
    label = broken.label_of(0, 3)
    label[:4] = 255
    broken.save(root / "train/masks/000.png", label)
    return root


def test_numbers_equal_those_of_one_big_array(root: Path) -> None:
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    one = describe(dataset)
    samples = [dataset.load(i) for i in range(3)]
    images = np.stack([sample.image for sample in samples]) / 255
    labels = np.stack([sample.label for sample in samples])
    assert one.mean == pytest.approx(images.mean(axis=(0, 1, 2)))
    assert one.std == pytest.approx(images.std(axis=(0, 1, 2)))
    assert one.class_pixels == tuple((labels == k).sum() for k in range(4))
    assert one.class_images == (3, 3, 3, 0)
    assert one.ignored == (labels == 255).mean() == 4 / 40 / 3
    assert sum(one.class_fractions) == pytest.approx(1)
    assert one.heights == (40, 40, 40)
    assert one.widths == (48, 48, 48)
    assert one.sizes == (((40, 48), 3),)
    assert (count_classes(dataset) == one.class_pixels).all()


def test_images_of_other_sizes_weigh_by_their_pixels(root: Path) -> None:
    broken.save(root / "train/images/001.png", np.full((10, 20, 3), 255, np.uint8))
    broken.save(root / "train/masks/001.png", np.ones((10, 20), np.uint8))
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    one = describe(dataset)
    values = np.concatenate([dataset.load(i).image.reshape(-1, 3) for i in range(3)]) / 255
    assert one.mean == pytest.approx(values.mean(axis=0))
    assert one.std == pytest.approx(values.std(axis=0))
    assert one.heights == (10, 40, 40)
    assert one.sizes[0] == ((40, 48), 2)


def test_16_bit_values_are_shares_of_65535(root: Path) -> None:
    for path in (root / "train/images").iterdir():
        cv2.imwrite(str(path), np.full((40, 48), 13107, np.uint16))
    one = describe(create_dataset(DataConfig(root=str(root)), "train"))
    assert one.max_value == 65535
    assert one.mean == pytest.approx((0.2,))
    assert one.std == pytest.approx((0.0,), abs=1e-6)


def test_a_bad_file_is_skipped_and_named(root: Path) -> None:
    path = broken.truncated(root)
    one = describe(create_dataset(DataConfig(root=str(root), channels=3), "train"))
    assert one.images == 2
    assert len(one.skipped) == 1
    assert str(path) in one.skipped[0]


def test_a_split_without_a_readable_sample_is_an_error(root: Path) -> None:
    dataset = create_dataset(DataConfig(root=str(root)), "val")
    (root / "val/images/100.png").write_bytes(b"")
    with pytest.raises(DataError, match="no sample of val can be read"):
        describe(dataset)


def test_weights_are_largest_for_the_rarest_class_and_1_without_a_pixel() -> None:
    weights = automatic_weights(np.array([900, 90, 10, 0]))
    assert weights[0] < weights[1] < weights[2]
    assert weights[:3].mean() == pytest.approx(1)
    assert weights[3] == 1
    assert weights[2] / weights[0] == pytest.approx(np.log(1.1 + 0.9) / np.log(1.1 + 0.01))


def test_median_frequencies_count_a_class_over_the_images_that_show_it(root: Path) -> None:
    dataset = create_dataset(DataConfig(root=str(root)), "train")
    labels = [dataset.load(i).label for i in range(3)]
    counts, around = count_occurrences(dataset)
    for k in range(4):
        showing = [label for label in labels if (label == k).any()]
        assert counts[k] == sum((label == k).sum() for label in labels)
        assert around[k] == sum(label.size for label in showing)
    assert (counts == count_classes(dataset)).all()
    assert around[0] == 3 * 40 * 48  # ignored pixels are around the classes, too
    assert counts.sum() == 3 * 40 * 48 - 4 * 48


def test_median_frequency_weights_by_hand() -> None:
    counts, around = np.array([600, 100, 0, 20]), np.array([1000, 1000, 0, 400])
    frequencies = [0.6, 0.1, 0.05]
    expected = [0.1 / frequencies[0], 1.0, 1.0, 0.1 / frequencies[2]]
    assert median_frequency_weights(counts, around) == pytest.approx(expected)
    assert median_frequency_weights(np.zeros(2, int), np.zeros(2, int)) == pytest.approx([1, 1])
