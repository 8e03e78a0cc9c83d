from __future__ import annotations

from importlib import import_module

import pytest
import torch
from fakes.largest import Largest
from torch.nn.functional import interpolate

from segatlas.ops import upsampled_lovasz
from segatlas.ops.upsampled_lovasz import jaccard_steps

CLASSES = 5


def make(low, size, dtype=torch.float64, count=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((count, CLASSES, *low), generator=generator).to(dtype) * 3
    labels = torch.randint(0, CLASSES - 1, (count, *size), generator=generator).byte()  # the last class is absent
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits.requires_grad_(), labels


def slow(logits, labels, canvas=None, align_corners=False, weight=None):
    """Full-size probabilities of all classes; the slopes from sorted errors of each class, autograd for the rest."""
    full = interpolate(logits, canvas or labels.shape[1:], mode="bilinear", align_corners=align_corners)
    probabilities = full[..., : labels.shape[1], : labels.shape[2]].softmax(1).movedim(1, 0)[:, labels != 255]
    truth = labels[labels != 255]
    losses, weights = [], []
    for k in truth.unique().tolist():
        errors, order = ((truth == k).to(full.dtype) - probabilities[k]).abs().sort(descending=True)
        of_class = (truth[order] == k).double()
        jaccard = 1 - (of_class.sum() - of_class.cumsum(0)) / (of_class.sum() + (1 - of_class).cumsum(0))
        losses.append(errors @ jaccard.diff(prepend=torch.zeros(1, dtype=torch.float64)).to(errors.dtype))
        weights.append(1.0 if weight is None else weight[k].item())
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def value_and_gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    loss = function(logits)
    loss.backward()
    return loss.detach(), logits.grad


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("low", "size", "canvas"),
    [
        ((8, 9), (32, 36), None),
        ((7, 5), (23, 31), None),
        ((8, 8), (27, 30), (32, 32)),
        ((16, 12), (8, 6), None),
        ((1, 1), (70, 90), None),
    ],
)
def test_loss_and_gradient_equal_those_of_full_size_probabilities(low, size, canvas, align_corners):
    logits, labels = make(low, size)
    weight = torch.tensor([0.3, 2.0, 1.0, 0.5, 5.0], dtype=torch.float64)
    options = {"canvas": canvas, "align_corners": align_corners, "weight": weight}
    value, gradient = value_and_gradient(lambda x: upsampled_lovasz(x, labels, **options), logits)
    wanted, its_gradient = value_and_gradient(lambda x: slow(x, labels, **options), logits)
    torch.testing.assert_close(value, wanted, atol=0, rtol=1e-9)
    if low == (1, 1):  # every pixel has the same error: the order is free, and with it the gradient
        return
    assert (gradient - its_gradient).norm() <= 1e-6 * its_gradient.norm()


def test_float32_is_close():
    logits, labels = make((16, 24), (64, 96), torch.float32)
    value, gradient = value_and_gradient(lambda x: upsampled_lovasz(x, labels), logits)
    wanted, its_gradient = value_and_gradient(lambda x: slow(x, labels), logits)
    torch.testing.assert_close(value, wanted, atol=0, rtol=1e-6)
    assert (gradient - its_gradient).norm() <= 1e-4 * its_gradient.norm()


def test_logits_of_any_magnitude_are_safe():
    logits, labels = make((16, 24), (64, 96), torch.float32)
    value, gradient = value_and_gradient(lambda x: upsampled_lovasz(x, labels), logits * 300)
    torch.testing.assert_close(value, slow(logits * 300, labels).detach(), atol=0, rtol=1e-5)
    assert gradient.isfinite().all()


def test_gradient_is_that_of_finite_differences():
    logits, labels = make((3, 3), (7, 9))
    assert torch.autograd.gradcheck(lambda x: upsampled_lovasz(x, labels), logits)


def test_no_array_is_larger_than_a_sorting_key_per_pixel():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, 24, 32, 64), generator=generator).requires_grad_()
    labels = torch.randint(0, 24, (1, 256, 512), generator=generator).byte()
    with Largest(logits, labels) as watch:
        upsampled_lovasz(logits, labels).backward()
    assert watch.bytes <= 8 * labels.numel()  # the full-size probabilities would be 12 times that


def test_a_factor_from_outside_scales_the_gradient():
    logits, labels = make((7, 5), (23, 31))
    _, once = value_and_gradient(lambda x: upsampled_lovasz(x, labels), logits)
    _, thrice = value_and_gradient(lambda x: 3 * upsampled_lovasz(x, labels), logits)
    torch.testing.assert_close(thrice, 3 * once)


def test_many_pieces_join_to_one_order(monkeypatch):
    logits, labels = make((7, 5), (23, 31))
    wanted = value_and_gradient(lambda x: upsampled_lovasz(x, labels), logits)
    # the package name `ops.upsampled_lovasz` is the function; the module is reached by import_module
    monkeypatch.setattr(import_module("segatlas.ops.upsampled_lovasz"), "PIECE", 100)
    torch.testing.assert_close(value_and_gradient(lambda x: upsampled_lovasz(x, labels), logits), wanted)


def test_labels_of_any_layout_and_type_and_another_ignore_index_give_the_same():
    logits, labels = make((7, 5), (23, 31))
    wanted = upsampled_lovasz(logits, labels)
    moved = labels.long().masked_fill(labels == 255, -100).movedim(1, 2).contiguous().movedim(1, 2)
    assert torch.equal(upsampled_lovasz(logits, moved, ignore_index=-100), wanted)


def test_without_labels_the_loss_is_zero_and_so_is_its_gradient():
    logits, labels = make((3, 4), (9, 9))
    value, gradient = value_and_gradient(lambda x: upsampled_lovasz(x, torch.full_like(labels, 255)), logits)
    assert value == 0
    assert not gradient.any()


def test_the_steps_add_up_to_the_whole_loss_on_large_sets():
    truth = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0)) < 0.01
    count = int(truth.sum())
    steps = jaccard_steps(truth, count)
    assert steps.sum().item() == pytest.approx(1.0, rel=1e-9)
    first, rest = truth[:400_000], truth[400_000:]
    later = jaccard_steps(rest, count, first.sum(), len(first))
    assert torch.equal(torch.cat([jaccard_steps(first, count), later]), steps)
