"""Losses with the divisors and the Dice of MMSegmentation, against the same written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses import CrossEntropy, Detail, Ohem, PointCrossEntropy
from segatlas.ops import upsampled_cross_entropy
from segatlas.structures import PointLogits

SIZE = (12, 16)


def drawn(channels: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (2, channels, 6, 8) float64 logits, and labels of 0..3 of which a third is ignored."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, channels, 6, 8, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, *SIZE), generator=draw)
    labels[torch.rand(2, *SIZE, generator=draw) < 1 / 3] = 255
    return logits.requires_grad_(), labels


def full(logits: Tensor) -> Tensor:
    return F.interpolate(logits, SIZE, mode="bilinear")


def assert_same(loss: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Compare value and gradient."""
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0], rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
def test_cross_entropy_is_divided_by_all_pixels_ignored_ones_included(weights):
    logits, labels = drawn()
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    total = F.cross_entropy(full(logits), labels, weight=weight, ignore_index=255, reduction="sum")
    known = labels[labels != 255]
    below = labels.numel() if weight is None else weight[known].sum() + (labels == 255).sum()
    assert_same(CrossEntropy(count_ignored=True)(logits, labels, class_weights=weight), total / below, logits)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.3, 1), (0.01, 50), (0.7, 10**6)])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
def test_ohem_is_the_sum_over_hard_pixels_divided_by_all_pixels(threshold, min_kept, weights):
    logits, labels = drawn(seed=1)
    weight = torch.ones(4, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = F.cross_entropy(full(logits), labels, ignore_index=255, reduction="none")
    known = labels != 255
    true = torch.exp(-loss.detach()).masked_fill(~known, 2)
    limit = true[known].sort().values[:min_kept][-1]
    hard = known & ((true < threshold) | (true <= limit))
    expected = (loss * weight[labels * known])[hard].sum() / (weight[labels[known]].sum() + (~known).sum())
    given = None if weights is None else weight
    term = Ohem(threshold=threshold, min_kept=min_kept, count_ignored=True)
    assert_same(term(logits, labels, class_weights=given), expected, logits)


def test_points_on_ignored_pixels_count_in_the_divisor():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 4, 6, generator=draw, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[[0, 1, 255, 3, 2, 255]]])
    points = torch.stack([(torch.arange(6) + 0.5) / 6, torch.full((6,), 0.5)], dim=1).unsqueeze(0)
    expected = F.cross_entropy(logits, labels.flatten(1), ignore_index=255, reduction="sum") / 6
    assert_same(PointCrossEntropy(count_ignored=True)(PointLogits(logits, points), labels), expected, logits)


def test_a_batch_in_parts_weighs_every_pixel_as_the_whole_batch_does():
    logits, labels = drawn(seed=3)
    labels[0] = 255
    labels[0, 0, 0] = 1
    for counted in (True, False):
        loss = CrossEntropy(count_ignored=counted)
        parts = (loss(logits[:1], labels[:1]) + loss(logits[1:], labels[1:])) / 2
        assert torch.allclose(parts, loss(logits, labels), rtol=1e-9) is counted


def test_of_a_batch_without_labels_nothing_is_left():
    logits, labels = drawn()
    labels[:] = 255
    for loss in (CrossEntropy(count_ignored=True), Ohem(count_ignored=True)):
        value = loss(logits, labels)
        assert value == 0
        assert not torch.autograd.grad(value, logits)[0].any()


def test_weights_of_pixels_and_of_all_pixels_exclude_each_other():
    logits, labels = drawn()
    with pytest.raises(UsageError, match="count_ignored: not together with pixel_weight"):
        upsampled_cross_entropy(logits, labels, pixel_weight=torch.ones(2, *SIZE), count_ignored=True)


def test_detail_with_ignored_pixels_as_a_class_draws_borders_around_them():
    logits, labels = drawn(2, seed=4)
    labels[:] = 1
    labels[:, 4:8, 4:8] = 255
    plain, counted = Detail(), Detail(ignored_as_class=True)
    moved = labels.clone()
    moved[labels == 255] = 3
    torch.testing.assert_close(counted(logits, labels), plain(logits, moved), rtol=1e-9, atol=0)
    assert abs((counted(logits, labels) - plain(logits, labels)).item()) > 1e-3


def test_the_squared_dice_of_detail_is_that_of_both_channels_written_out():
    logits, labels = drawn(2, seed=5)
    labels[labels == 255] = 0
    from segatlas.losses.detail import detail_map

    border = detail_map(labels).double()
    target, p = torch.stack([1 - border, border], 1).flatten(1), full(logits).sigmoid().flatten(1)
    dice = 1 - 2 * (p * target).sum(1) / ((p * p).sum(1) + 1e-3 + (target * target).sum(1) + 1e-3)
    mean = F.binary_cross_entropy(p, target)
    assert_same(Detail(squared_dice=True)(logits, labels), mean + dice.mean(), logits)
