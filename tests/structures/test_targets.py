"""Truths of one type that serve where another is asked for."""

import numpy as np

from segatlas.structures import SegmentsTarget


def test_the_labels_of_segments_are_their_classes_and_crowds_are_ignored():
    ids = np.array([[0, 1, -1], [2, 2, 0]], np.int32)
    target = SegmentsTarget(ids, np.array([4, 0, 2]), np.array([True, False, True]), np.array([False, False, True]))
    assert target.labels.tolist() == [[4, 0, 255], [255, 255, 4]]
    assert target.labels.dtype == np.uint8
    empty = SegmentsTarget(np.full((2, 2), -1, np.int32), *(np.zeros(0, kind) for kind in (np.int64, bool, bool)))
    assert (empty.labels == 255).all()
