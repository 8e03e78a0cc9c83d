"""The losses of an alignment: distances of keypoints, weights of splines."""

from __future__ import annotations

import torch

from segatlas.losses import LOSSES

LABELS = torch.zeros(3, 4, 4, dtype=torch.uint8)
LABELS[2] = 255
VALUES = torch.tensor([[[1.0, -2.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 0.0]], [[9.0, 9.0], [9.0, 9.0]]])


def test_equivariance_is_the_mean_distance_over_labelled_images():
    assert LOSSES["keypoint_equivariance"]()(VALUES, LABELS).item() == (4 / 4 + 1 / 4) / 2


def test_bending_is_the_mean_squared_length_over_labelled_images():
    assert LOSSES["bending"]()(VALUES, LABELS).item() == ((5 + 1) / 2 + 0.5 / 2) / 2
