from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example

from segatlas.errors import UsageError
from segatlas.losses import PointCrossEntropy
from segatlas.losses.point_cross_entropy import labels_at
from segatlas.structures import PointLogits


def points_and_labels() -> tuple[PointLogits, torch.Tensor]:
    """Logits of 4 classes at 40 points of each image; labels cover a part of the canvas only."""
    _, labels = example()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 40, generator=generator, dtype=torch.float64).requires_grad_()
    return PointLogits(logits, torch.rand(2, 40, 2, generator=generator)), labels


def slow(given: PointLogits, labels: torch.Tensor, weights: list[float]) -> float:
    total = divisor = 0.0
    rows, columns = CANVAS
    for n, (logits, points) in enumerate(zip(given.logits.detach().numpy(), given.points.tolist(), strict=True)):
        for p, (x, y) in enumerate(points):
            row, column = math.floor(y * rows), math.floor(x * columns)
            if row < labels.shape[1] and column < labels.shape[2] and labels[n, row, column] != 255:
                label = int(labels[n, row, column])
                scores = logits[:, p]
                total += weights[label] * (np.log(np.exp(scores).sum()) - scores[label])
                divisor += weights[label]
    return total / divisor


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.5, 3.0]])
def test_it_is_the_mean_over_points_on_labelled_pixels(weights):
    given, labels = points_and_labels()
    loss = partial(PointCrossEntropy(), class_weights=None if weights is None else torch.tensor(weights))
    expected = slow(given, labels, weights or [1.0] * 4)
    assert loss(given, labels, CANVAS).item() == pytest.approx(expected, rel=1e-6)
    assert loss(given, labels.long(), CANVAS).item() == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_finite_differences():
    given, labels = points_and_labels()
    loss = partial(PointCrossEntropy(), class_weights=torch.tensor([0.5, 2.0, 1.5, 3.0]))
    assert torch.autograd.gradcheck(lambda x: loss(PointLogits(x, given.points), labels, CANVAS), given.logits)


def test_a_batch_without_labels_costs_nothing_and_has_zero_gradients():
    given, labels = points_and_labels()
    value = PointCrossEntropy()(given, torch.full_like(labels, 255), CANVAS)
    assert value.item() == 0
    assert (torch.autograd.grad(value, given.logits)[0] == 0).all()


def test_half_precision_logits_are_computed_in_float32():
    given, labels = points_and_labels()
    half = PointLogits(given.logits.bfloat16(), given.points)
    value = PointCrossEntropy()(half, labels, CANVAS)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, PointCrossEntropy()(PointLogits(half.logits.float(), given.points), labels, CANVAS)
    )


def test_a_wrong_number_of_class_weights_is_named():
    given, labels = points_and_labels()
    with pytest.raises(UsageError, match="class_weights has 3 numbers, but the network has 4 classes"):
        PointCrossEntropy()(given, labels, CANVAS, class_weights=torch.ones(3))


def test_a_point_has_the_label_of_the_pixel_that_it_lies_in():
    labels = torch.tensor([[[0, 1, 2], [3, 4, 5]]], dtype=torch.uint8)
    points = torch.tensor([[[0.0, 0.0], [0.34, 0.2], [0.99, 0.51], [1.0, 1.0], [0.32, 0.49]]])
    assert labels_at(points, labels).tolist() == [[0, 1, 5, 5, 0]]


def test_with_corners_aligned_the_outermost_pixels_centres_are_0_and_1():
    labels = torch.tensor([[[0, 1, 2], [3, 4, 5]]], dtype=torch.uint8)
    points = torch.tensor([[[0.0, 0.0], [0.24, 0.49], [0.26, 0.51], [1.0, 1.0]]])
    assert labels_at(points, labels, align_corners=True).tolist() == [[0, 0, 4, 5]]


def test_points_on_the_padding_of_the_canvas_have_no_label():
    labels = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    points = torch.tensor([[[0.1, 0.1], [0.45, 0.45], [0.55, 0.1], [0.1, 0.9]]])
    assert labels_at(points, labels, canvas=(4, 4)).tolist() == [[0, 3, 255, 255]]
