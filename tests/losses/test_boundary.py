from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, pixels

from segatlas.losses import Boundary
from segatlas.losses.boundary import near_boundary


def slow_near(labels: np.ndarray, width: int) -> np.ndarray:
    near = np.zeros(labels.shape, bool)
    for n, y, x in np.argwhere(labels != 255):
        window = labels[n, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
        near[n, y, x] = ((window != labels[n, y, x]) & (window != 255)).any()
    return near


@pytest.mark.parametrize("width", [1, 2, 30])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_near_are_pixels_with_another_label_in_their_window(width, dtype):
    _, labels = example()
    labels[1, :, 8:] = 1  # a wide region without change
    assert (near_boundary(labels.to(dtype), width).numpy() == slow_near(labels.numpy(), width)).all()


def test_a_straight_change_has_width_pixels_on_each_side():
    labels = torch.zeros(1, 8, 20, dtype=torch.uint8)
    labels[..., 10:] = 7
    assert near_boundary(labels, 3)[0].sum(1).tolist() == [6] * 8
    assert near_boundary(labels, 3)[0, 0].nonzero().flatten().tolist() == [7, 8, 9, 10, 11, 12]


def test_a_border_to_ignored_pixels_is_no_boundary():
    labels = torch.zeros(1, 8, 20, dtype=torch.uint8)
    labels[..., 10:] = 255
    assert not near_boundary(labels, 3).any()


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.5, 3.0)])
def test_it_is_the_mean_with_heavier_boundaries(weights):
    logits, labels = example()
    p, truth = pixels(logits, labels)
    near = slow_near(labels.numpy(), 1)[labels.numpy() != 255]
    assert 0 < near.sum() < near.size
    weight = np.where(near, 4.0, 1.0) * np.array(weights)[truth]
    expected = -(weight * np.log(p[range(len(p)), truth])).sum() / weight.sum()
    loss = Boundary(width=1, factor=4.0)(logits, labels, CANVAS, class_weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
