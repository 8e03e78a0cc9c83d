from __future__ import annotations

import math

import pytest
import torch

from segatlas.errors import UsageError
from segatlas.losses import ClassPresence
from segatlas.losses.class_presence import class_presence


def test_a_class_is_present_where_one_pixel_has_it_and_255_is_none():
    labels = torch.tensor([[[0, 2], [2, 255]], [[255, 255], [255, 1]]], dtype=torch.uint8)
    assert class_presence(labels, 3).tolist() == [[True, False, True], [False, True, False]]


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 5.0)])
def test_it_is_the_binary_cross_entropy_of_each_class(weights):
    labels = torch.tensor([[[0, 2]], [[255, 1]]], dtype=torch.uint8)
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]])
    total = 0.0
    for row, present in zip(logits.tolist(), ([1, 0, 1], [0, 1, 0]), strict=True):
        for value, yes, weight in zip(row, present, weights or (1, 1, 1), strict=True):
            total -= weight * math.log(1 / (1 + math.exp(-value if yes else value)))
    expected = total / (2 * sum(weights or (1, 1, 1)))
    given = None if weights is None else torch.tensor(weights)
    assert ClassPresence()(logits, labels, class_weights=given).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_a_head_of_another_class_count_tells_the_classes_that_it_has(count):
    labels = torch.tensor([[[0, 2]], [[255, 1]]], dtype=torch.uint8)
    logits = torch.linspace(-1, 2, 2 * count).view(2, count)
    targets = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])[:, :count]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(ClassPresence()(logits, labels), expected)
    with pytest.raises(UsageError, match=f"class_weights has 3 numbers, but the network has {count} classes"):
        ClassPresence()(logits, labels, class_weights=torch.ones(3))


def test_an_image_without_labelled_pixels_does_not_count():
    labels = torch.tensor([[[0, 255]], [[255, 255]]], dtype=torch.uint8)
    logits = torch.tensor([[0.3, -1.0], [5.0, 5.0]], requires_grad=True)
    loss = ClassPresence()(logits, labels)
    torch.testing.assert_close(loss, ClassPresence()(logits[:1], labels[:1]))
    loss.backward()
    assert not logits.grad[1].any()


def test_a_map_of_logits_is_refused():
    with pytest.raises(UsageError, match=r"aux\.presence"):
        ClassPresence()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8))
