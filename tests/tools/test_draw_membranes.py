"""Drawn membranes: the same again from one seed, thin, dark, and a folder that is read."""

from __future__ import annotations

import sys

import cv2
import numpy as np

import draw_membranes
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset


def test_an_image_follows_from_seed_split_and_index():
    first = draw_membranes.draw(0, "train", 0, 96)
    assert all(map(np.array_equal, first, draw_membranes.draw(0, "train", 0, 96)))
    for other in ((1, "train", 0), (0, "val", 0), (0, "train", 1)):
        assert not np.array_equal(first[0], draw_membranes.draw(*other, 96)[0])


def test_walls_are_thin_and_darker_than_cells():
    image, labels = draw_membranes.draw(0, "train", 0, 256)
    walls = labels == 1
    assert 0.08 < walls.mean() < 0.25
    assert cv2.distanceTransform(labels, cv2.DIST_L2, 5).max() < 8
    assert image[walls].mean() < image[~walls].mean() - 20


def test_the_folder_is_read_with_its_classes(tmp_path, monkeypatch):
    words = ["x", str(tmp_path / "out"), "--train", "2", "--val", "1", "--test", "1", "--side", "64"]
    monkeypatch.setattr(sys, "argv", words)
    assert draw_membranes.main() == 0
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        data = create_dataset(DataConfig(name="folder", root=str(tmp_path / "out")), split)
        assert (len(data), tuple(data.classes)) == (count, draw_membranes.CLASSES)
        assert set(np.unique(data.load(0).label)) == {0, 1}
