from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from segatlas.config import losses as terms
from segatlas.errors import UsageError
from segatlas.losses import (
    LOSSES,
    Boundary,
    CrossEntropy,
    CrossEntropyDice,
    Dice,
    Focal,
    Lovasz,
    Ohem,
    Tversky,
    build_loss,
)
from segatlas.losses.boundary import near_boundary

_spec = importlib.util.spec_from_file_location("slow_losses", Path(__file__).with_name("slow_losses.py"))
slow = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(slow)

CLASSES = 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])

PAIRS = {
    "cross entropy": (CrossEntropy(), slow.cross_entropy, {}),
    "cross entropy, smoothed and weighted": (
        CrossEntropy(label_smoothing=0.2, class_weights=WEIGHTS),
        slow.cross_entropy,
        {"smoothing": 0.2, "weights": WEIGHTS},
    ),
    "ohem by threshold": (Ohem(threshold=0.4, min_kept=3), slow.ohem, {"threshold": 0.4, "min_kept": 3}),
    "ohem by count, weighted": (
        Ohem(threshold=0.01, min_kept=20, class_weights=WEIGHTS),
        slow.ohem,
        {"threshold": 0.01, "min_kept": 20, "weights": WEIGHTS},
    ),
    "dice": (Dice(), slow.dice, {}),
    "dice, weighted": (Dice(smooth=3.0, class_weights=WEIGHTS), slow.dice, {"smooth": 3.0, "weights": WEIGHTS}),
    "focal": (Focal(), slow.focal, {}),
    "focal, weighted": (Focal(gamma=0.5, class_weights=WEIGHTS), slow.focal, {"gamma": 0.5, "weights": WEIGHTS}),
    "tversky": (Tversky(), slow.tversky, {"alpha": 0.3, "beta": 0.7, "gamma": 1.0, "smooth": 1.0}),
    "focal tversky, weighted": (
        Tversky(alpha=0.6, beta=0.2, gamma=0.75, smooth=0.0, class_weights=WEIGHTS),
        slow.tversky,
        {"alpha": 0.6, "beta": 0.2, "gamma": 0.75, "smooth": 0.0, "weights": WEIGHTS},
    ),
    "lovasz": (Lovasz(), slow.lovasz, {}),
    "lovasz per image, weighted": (
        Lovasz(per_image=True, class_weights=WEIGHTS),
        slow.lovasz,
        {"per_image": True, "weights": WEIGHTS},
    ),
    "boundary": (Boundary(width=1, factor=4.0), slow.boundary, {"width": 1, "factor": 4.0}),
    "boundary, weighted": (
        Boundary(width=3, factor=2.5, class_weights=WEIGHTS),
        slow.boundary,
        {"width": 3, "factor": 2.5, "weights": WEIGHTS},
    ),
}
MODULES = {name: module for name, (module, _, _) in PAIRS.items()} | {
    "cross entropy and dice": CrossEntropyDice(label_smoothing=0.1)
}


def make(low=(3, 4), size=(9, 10), absent: int | None = None):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, CLASSES, *low), generator=generator, dtype=torch.float64) * 2
    coarse = torch.randint(0, CLASSES, (2, *size), generator=generator)
    labels = coarse.masked_fill(torch.rand(coarse.shape, generator=generator) < 0.25, 255).to(torch.uint8)
    return logits, labels if absent is None else labels.masked_fill(labels == absent, 255)


@pytest.mark.parametrize("absent", [None, 2])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_the_slow_version(name, absent):
    module, function, options = PAIRS[name]
    logits, labels = make(absent=absent)
    canvas = (12, 16)  # the labels cover a part: the rest is padding
    expected = function(logits, labels, canvas=canvas, **options)
    assert module(logits, labels, canvas).item() == pytest.approx(expected, rel=1e-9)


def test_cross_entropy_and_dice_are_shared_as_told():
    logits, labels = make()
    loss = CrossEntropyDice(label_smoothing=0.1, dice_share=0.3, smooth=2.0, class_weights=WEIGHTS)
    expected = 0.7 * slow.cross_entropy(logits, labels, 0.1, WEIGHTS) + 0.3 * slow.dice(logits, labels, 2.0, WEIGHTS)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_logits_under_unlabelled_pixels_do_not_matter(name):
    logits, labels = make((9, 10), (9, 10))  # stride 1: each sample belongs to one pixel
    changed = torch.where((labels == 255).unsqueeze(1), logits.flip(1) * 3, logits)
    assert not torch.equal(logits, changed)
    assert torch.equal(MODULES[name](logits, labels), MODULES[name](changed, labels))


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_without_labels_gives_zero_and_finite_gradients(name):
    logits, labels = make()
    logits.requires_grad_()
    loss = MODULES[name](logits, torch.full_like(labels, 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_the_slopes(name):
    logits, labels = make((2, 3), (5, 6))
    assert torch.autograd.gradcheck(lambda x: MODULES[name](x, labels), logits.requires_grad_())


@pytest.mark.parametrize("name", MODULES)
def test_half_precision_gives_a_finite_float32_loss(name):
    logits, labels = make()
    logits = logits.bfloat16().requires_grad_()
    loss = MODULES[name](logits, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == torch.bfloat16
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", MODULES)
def test_a_perfect_prediction_has_finite_gradients(name):
    _, labels = make((9, 10), (9, 10))
    labels = labels.masked_fill(labels == 255, 0)
    logits = torch.nn.functional.one_hot(labels.long(), CLASSES).permute(0, 3, 1, 2).float().mul(200).requires_grad_()
    loss = MODULES[name](logits, labels)
    loss.backward()
    assert logits.grad.isfinite().all()
    if "smoothed" not in name and "dice" not in name and "tversky" not in name:
        assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_boundary_pixels_are_those_within_the_width(width):
    _, labels = make((2, 3), (11, 13))
    blocks = labels[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    expected = [slow.near_boundary(picture.tolist(), width) for picture in blocks]
    assert near_boundary(blocks, width).bool().tolist() == expected


def test_unlabelled_pixels_make_no_boundary():
    labels = torch.tensor([[[0, 0, 255, 255, 1, 1]]], dtype=torch.uint8)
    assert not near_boundary(labels, 5).any()
    assert near_boundary(torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8), 1).tolist() == [[[0, 1, 1, 0]]]


def all_terms() -> list[type[terms.Term]]:
    return list(get_args(get_args(terms.LossTerm)[0]))


def test_every_term_of_a_recipe_has_a_class():
    assert set(LOSSES) == set(all_terms())


@pytest.mark.parametrize("term", all_terms())
def test_every_field_of_a_term_changes_the_loss(term):
    logits, labels = make((5, 5), (20, 20))
    labels = labels[:, ::5, ::5].repeat_interleave(5, 1).repeat_interleave(5, 2)  # blocks: not all is near a boundary
    name = get_args(term.model_fields["name"].annotation)[0]
    other = {
        "label_smoothing": 0.3,
        "threshold": 0.99,
        "min_kept": 3,
        "smooth": 50.0,
        "dice_share": 0.9,
        "gamma": 4.0,
        "alpha": 0.9,
        "beta": 0.1,
        "per_image": True,
        "width": 1,
        "factor": 20.0,
        "class_weights": tuple(WEIGHTS.tolist()),
    }
    # More kept by count than by threshold, but not all: both OHEM fields can matter.
    base = {"threshold": 0.01, "min_kept": 300} if name == "ohem" else {}
    build = TypeAdapter(terms.LossTerm).validate_python
    before = build_loss(build({"name": name, **base}))(logits, labels)
    for field in set(term.model_fields) - {"name", "weight", "on"}:  # those belong to the criterion
        after = build_loss(build({"name": name, **base, field: other[field]}))(logits, labels)
        assert after != before, f"{name}.{field} has no effect"


def test_auto_class_weights_are_those_given():
    logits, labels = make()
    automatic = build_loss(terms.CrossEntropyTerm(name="cross_entropy", class_weights="auto"), WEIGHTS)
    assert automatic(logits, labels) == CrossEntropy(class_weights=WEIGHTS)(logits, labels)
    plain = build_loss(terms.CrossEntropyTerm(name="cross_entropy"), WEIGHTS)
    assert plain(logits, labels) == CrossEntropy()(logits, labels)


def test_auto_class_weights_without_any_are_refused():
    with pytest.raises(UsageError, match="class_weights is 'auto'"):
        build_loss(terms.DiceTerm(name="dice", class_weights="auto"))


def test_class_weights_are_not_saved_with_a_network():
    assert not CrossEntropyDice(class_weights=WEIGHTS).state_dict()
