"""What has no label plays no part: facts that hold for every loss of class maps, heads of their own kind included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from segatlas.config.losses import LossConfig
from segatlas.losses import LOSSES, Loss, losses_for
from segatlas.structures import PatchAttention, PointLogits

SIZE = (12, 16)
CLASSES = 4
COUNTING = {"count_ignored", "ignored_as_class"}
"""Keys with which ignored pixels do count, as elsewhere; `test_counted_as_elsewhere.py` says how."""


def keys(loss: type[Loss]) -> Iterator[dict[str, Any]]:
    """Yield keys of a loss: none, those for small images, and each number at its least value or below one."""
    yield {}
    if loss.tiny:
        yield dict(loss.tiny)
    for key in loss.model_fields:
        default = loss.model_fields[key].default
        if key in LossConfig.model_fields or key in COUNTING:
            continue
        values = (not default,) if isinstance(default, bool) else (0, 1) if isinstance(default, int) else (0.0, 0.5)
        for value in values:
            try:
                loss(**{key: value})
            except ValueError:
                continue
            yield {key: value}


LOSSES_OF_LABELS = {name: loss for name, loss in losses_for("SemanticLogits").items() if not loss.reads_around}
"""Without those that learn from what stands around the logits where there is no label: their own tests say what of."""
CASES = [(name, fields) for name, loss in LOSSES_OF_LABELS.items() for fields in keys(loss)]
OF_WAYS = {"pixel_relations"}
"""Losses that learn of a pixel without label from those with one, between which it lies."""
every_loss = pytest.mark.parametrize(("name", "fields"), CASES)


class Case:
    """A loss with logits and labels of three images at one size; the last image has no label."""

    def __init__(self, name: str, fields: dict[str, Any], weights: Tensor | None = None):
        generator = torch.Generator().manual_seed(4)
        self.loss, self.weights = LOSSES[name](**fields), weights
        coarse = torch.randint(0, CLASSES, (3, 6, 8), generator=generator)
        self.labels = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).to(torch.uint8)
        self.labels[torch.rand(3, *SIZE, generator=generator) < 0.3] = 255
        self.labels[2] = 255
        given = self.loss.example(self.labels, CLASSES, generator)
        self.given, self.points = given, given.points if isinstance(given, PointLogits) else None
        self.logits = given.logits if isinstance(given, PointLogits) else given
        if isinstance(given, PatchAttention):
            self.logits = given.image

    def __call__(self, images: slice = slice(None), logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return value and gradient of the loss over some of the images."""
        values = (self.logits if logits is None else logits)[images].clone().requires_grad_()
        given = values if self.points is None else PointLogits(values, self.points[images])
        if isinstance(self.given, PatchAttention):
            given = self.given._replace(image=values, features=self.given.features[images])
        value = self.loss(given, self.labels[images], class_weights=self.weights)
        return value.detach(), torch.autograd.grad(value, values)[0]


@every_loss
@pytest.mark.parametrize("images", [slice(2, 3), slice(None)])
def test_without_any_label_value_and_gradient_are_zero(name, fields, images):
    case = Case(name, fields)
    case.labels[:] = 255
    value, gradient = case(images)
    assert value == 0
    assert not gradient.any()


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_an_image_without_labels_changes_neither_value_nor_gradient_of_the_others(name, fields, weighted):
    weights = torch.tensor([0.5, 2.0, 1.5, 3.0]) if weighted and LOSSES[name].weighted else None
    case = Case(name, fields, weights)
    (alone, of_alone), (mixed, of_mixed) = case(slice(0, 2)), case()
    torch.testing.assert_close(mixed, alone, rtol=1e-9, atol=0)
    torch.testing.assert_close(of_mixed[:2], of_alone, rtol=1e-9, atol=1e-12)
    assert not of_mixed[2].any()
    assert alone > 0


@pytest.mark.parametrize(
    ("name", "fields"),
    [case for case in CASES if getattr(Case(*case).given, "ndim", 0) == 4 and case[0] not in OF_WAYS],
)
@pytest.mark.parametrize("size", [3.0, 1e4])
def test_logits_of_ignored_pixels_change_nothing(name, fields, size):
    case = Case(name, fields)
    ignored = (case.labels == 255).unsqueeze(1).expand_as(case.logits)
    value, gradient = case()
    assert not gradient[ignored].any()
    noise = torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    changed, of_changed = case(logits=case.logits + size * noise * ignored)
    torch.testing.assert_close(changed, value, rtol=1e-9, atol=0)
    torch.testing.assert_close(of_changed, gradient, rtol=1e-9, atol=1e-12)


def test_logits_of_points_on_ignored_pixels_change_nothing():
    case = Case("point_cross_entropy", {})
    x, y = (case.points * torch.tensor([SIZE[1], SIZE[0]])).long().unbind(2)
    ignored = case.labels.flatten(1).gather(1, y * SIZE[1] + x) == 255
    value, gradient = case()
    assert not gradient[ignored.unsqueeze(1).expand_as(gradient)].any()
    changed, _ = case(logits=case.logits + 5 * ignored.unsqueeze(1))
    torch.testing.assert_close(changed, value, rtol=1e-9, atol=0)


def test_the_pixels_that_ohem_keeps_are_counted_among_labelled_ones():
    case = Case("ohem", {"threshold": 1e-9, "min_kept": 25})
    labelled = case.labels[:2] != 255
    log_p = case.logits[:2].log_softmax(1).gather(1, case.labels[:2].long().masked_fill(~labelled, 0).unsqueeze(1))
    expected = -log_p.squeeze(1)[labelled].sort().values[:25].mean()
    torch.testing.assert_close(case()[0], expected, rtol=1e-9, atol=0)
