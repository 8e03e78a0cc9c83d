from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example
from torch.nn import functional as F

from segatlas.losses import LOSSES
from segatlas.structures.class_boundaries import class_boundaries

ClassBoundary = LOSSES["class_boundary"]


def slow(chances: np.ndarray, labels: np.ndarray, width: int, weights: np.ndarray) -> float:
    """Sum over pixels and windows, one after another. chances: (N, K, H, W)."""
    both, found, true = np.zeros((3, chances.shape[1]))
    for n, row, column in np.argwhere(labels != 255):
        rows, columns = (slice(max(at - width, 0), at + width + 1) for at in (row, column))
        window = labels[n, rows, columns]
        near = ((window != labels[n, row, column]) & (window != 255)).any()
        for k in range(chances.shape[1]):
            others = 1 - chances[n, k, rows, columns][window != 255]
            predicted = chances[n, k, row, column] * others.max()
            truth = float(near and labels[n, row, column] == k)
            both[k] += predicted * truth
            found[k] += predicted
            true[k] += truth
    there = true > 0
    dice = 2 * both[there] / (found + true)[there]
    return 1 - float((dice * weights[there]).sum() / weights[there].sum())


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
def test_it_is_the_overlap_of_class_boundaries_pixel_by_pixel(weights):
    logits, labels = example()
    upsampled = F.interpolate(logits, CANVAS, mode="bilinear")[..., : labels.shape[1], : labels.shape[2]]
    expected = slow(upsampled.softmax(1).detach().numpy(), labels.numpy(), 1, np.array(weights or [1.0] * 4))
    given = None if weights is None else torch.tensor(weights)
    loss = ClassBoundary(width=1)(logits, labels, CANVAS, class_weights=given)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_certain_and_right_probabilities_cost_nothing_and_their_boundaries_are_the_labels():
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 3:8, 4:] = 1
    labels[:, 9:] = 2
    logits = 60 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert ClassBoundary(width=2)(logits, labels).item() == pytest.approx(0, abs=1e-6)
    moved = ClassBoundary(width=2)(logits.roll(4, 3), labels).item()
    assert 0.2 < moved < 1
    near = class_boundaries(labels[0].numpy().astype(np.uint8), width=2, rest=3)
    assert set(np.unique(near)) == {0, 1, 2, 3}


def test_without_a_boundary_it_is_nothing_with_a_gradient_of_nothing():
    logits = torch.randn(1, 3, 6, 6, requires_grad=True)
    loss = ClassBoundary()(logits, torch.ones(1, 6, 6, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
