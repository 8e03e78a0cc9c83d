"""Facts that hold for every loss."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from fakes.logits import CANVAS, example

from segatlas.config.losses import AnyLossConfig, LossConfig
from segatlas.errors import UsageError
from segatlas.losses import LOSSES, build_loss

ALL_TERMS: dict[str, type[LossConfig]] = {
    t.model_fields["name"].annotation.__args__[0]: t
    for t in get_args(get_args(AnyLossConfig)[0])
    if t.output == "SemanticLogits"  # those of other outputs are part of their criterion, see tests/criteria
}
OF_A_HEAD = {
    "class_presence",
    "detail",
}
"""Terms for one kind of auxiliary head, whose output is no logits of classes; each is tested in its own file."""

TERMS = {name: term for name, term in ALL_TERMS.items() if name not in OF_A_HEAD}

OTHER_VALUES: dict[str, Any] = {
    "label_smoothing": 0.3,
    "threshold": 0.2,
    "min_kept": 10**6,
    "smooth": 20.0,
    "dice_fraction": 0.9,
    "gamma": 3.0,
    "alpha": 0.9,
    "beta": 0.1,
    "per_image": True,
    "width": 2,
    "factor": 2.0,
}
SMALL: dict[str, dict[str, Any]] = {"ohem": {"min_kept": 1}, "boundary": {"width": 1}}
"""Values for images so small that the defaults would take in all pixels."""

MAPS = [name for name in TERMS if name != "point_cross_entropy"]
"""Losses on a map of logits; the other one has its own tests."""

OWN_FIELDS = [
    (name, field) for name, term in TERMS.items() for field in term.model_fields if field not in LossConfig.model_fields
]


def build(name: str, class_weights: torch.Tensor | None = None, **fields: Any) -> torch.nn.Module:
    fields = SMALL.get(name, {}) | fields
    return build_loss(TERMS[name](name=name, **fields), class_weights)


def test_every_term_of_a_recipe_has_a_class_and_every_class_a_term():
    assert LOSSES.keys() == ALL_TERMS.keys()


@pytest.mark.parametrize(("name", "field"), OWN_FIELDS)
def test_every_field_of_a_term_changes_the_loss(name, field):
    logits, labels = example()
    plain, changed = build(name), build(name, **{field: OTHER_VALUES[field]})
    assert plain(logits, labels, CANVAS).item() != pytest.approx(changed(logits, labels, CANVAS).item(), rel=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_class_weights_change_the_loss_and_equal_ones_do_not(name):
    logits, labels = example()
    plain = build(name)(logits, labels, CANVAS).item()
    assert build(name, torch.full((4,), 2.0))(logits, labels, CANVAS).item() == pytest.approx(plain, rel=1e-5)
    uneven = build(name, torch.tensor([0.1, 1.0, 3.0, 1.0]))(logits, labels, CANVAS).item()
    assert uneven != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_a_wrong_number_of_class_weights_is_named(name):
    with pytest.raises(UsageError, match="class_weights has 3 numbers, but the network has 4 classes"):
        build(name, torch.ones(3))(*example(), CANVAS)


@pytest.mark.parametrize("name", MAPS)
def test_logits_that_reach_only_ignored_pixels_change_nothing(name):
    logits, labels = example()
    labels[0, :, 8:] = 255  # samples from column 3 on lie at pixel 13.5 and reach down to 9.5
    loss = build(name)
    before = loss(logits, labels, CANVAS)
    gradient = torch.autograd.grad(before, logits)[0]
    assert (gradient[0, :, :, 3:] == 0).all()
    assert (gradient[0, :, :, :2] != 0).any()
    assert (gradient[1, :, :, 3:] != 0).any()
    changed = logits.detach().clone()
    changed[0, :, :, 3:] += torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(0)) * 10
    torch.testing.assert_close(loss(changed, labels, CANVAS), before.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MAPS)
def test_a_batch_without_labels_costs_nothing_and_has_zero_gradients(name):
    logits, labels = example()
    value = build(name)(logits, torch.full_like(labels, 255), CANVAS)
    assert value.item() == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()


@pytest.mark.parametrize("name", MAPS)
def test_labels_may_be_uint8_or_int64(name):
    logits, labels = example()
    loss = build(name)
    assert torch.equal(loss(logits, labels, CANVAS), loss(logits, labels.long(), CANVAS))


@pytest.mark.parametrize("name", MAPS)
def test_half_precision_logits_are_computed_in_float32(name):
    logits, labels = example(torch.bfloat16)
    loss = build(name)
    value = loss(logits, labels, CANVAS)
    assert value.dtype == torch.float32
    assert value.ndim == 0
    torch.testing.assert_close(value, loss(logits.float(), labels, CANVAS))
    assert torch.autograd.grad(value, logits)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("align_corners", [False, True])
def test_gradients_are_those_of_finite_differences(name, align_corners):
    logits, labels = example(torch.float64)
    logits = logits.detach()[:, :, :3, :3].clone().requires_grad_()
    loss = build(name, torch.tensor([0.5, 2.0, 1.5, 3.0]))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels[:, :7, :9], (9, 10), align_corners), logits)


@pytest.mark.parametrize("name", MAPS)
def test_class_weights_are_not_saved(name):
    assert not build(name, torch.ones(4)).state_dict()
