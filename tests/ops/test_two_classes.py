from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from segatlas.errors import UsageError
from segatlas.ops import upsampled_cross_entropy

# (h, w) logits, (H, W) labels, canvas
GEOMETRIES = [
    ((8, 9), (32, 36), None),
    ((7, 5), (23, 31), None),
    ((8, 8), (27, 30), (32, 32)),
    ((9, 8), (7, 6), (9, 8)),
    ((16, 12), (8, 6), None),
    ((6, 4), (6, 4), None),
    ((1, 1), (70, 90), None),
    ((3, 1), (9, 1), None),
    ((2, 3), (150, 40), None),
]


def make(low, size, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn((2, 2, *low), generator=generator) * scale).to(dtype)
    labels = torch.randint(0, 2, (2, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, labels


def plain(logits, labels, canvas=None, align_corners=False, **settings):
    """Upsample the logits, cut off the padding and take torch's loss."""
    size = canvas or labels.shape[1:]
    full = interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)
    return cross_entropy(full[..., : labels.shape[1], : labels.shape[2]], labels, ignore_index=255, **settings)


def both(function, logits):
    logits = logits.clone().requires_grad_()
    loss = function(logits)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def assert_same(ours, theirs, logits, close=1e-12):
    (loss, gradient), (expected, slope) = both(ours, logits), both(theirs, logits)
    assert abs(loss - expected) <= close * abs(expected)
    assert (gradient - slope).norm() <= 100 * close * slope.norm()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("low", "size", "canvas"), GEOMETRIES)
def test_two_classes_equal_torch_in_any_geometry(low, size, canvas, align_corners):
    logits, labels = make(low, size)
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, canvas=canvas, align_corners=align_corners),
        lambda x: plain(x, labels, canvas, align_corners),
        logits,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, (0.3, 2.0), (1.0, 1e-9), (0.0, 1.0)])
@pytest.mark.parametrize("low", [(7, 5), (23, 31)])
def test_two_classes_with_weights_and_smoothing_equal_torch(low, weight, smoothing):
    logits, labels = make(low, (23, 31))
    settings = {
        "weight": None if weight is None else torch.tensor(weight, dtype=torch.float64),
        "label_smoothing": smoothing,
    }
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, **settings), lambda x: plain(x, labels, **settings), logits
    )


def test_pixel_weights_of_two_classes_enter_sum_and_divisor():
    logits, labels = make((7, 5), (23, 31))
    weight = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def slow(x):
        losses = cross_entropy(interpolate(x, (23, 31), mode="bilinear"), labels, ignore_index=255, reduction="none")
        return (losses * weight).sum() / weight[labels != 255].sum()

    assert_same(lambda x: upsampled_cross_entropy(x, labels, pixel_weight=weight), slow, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_steep_logits_of_two_classes_stay_finite_and_exact(smoothing, dtype):
    logits, labels = make((7, 5), (23, 31), scale=2000.0, dtype=dtype)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, label_smoothing=smoothing),
        lambda x: plain(x, labels, label_smoothing=smoothing),
        logits,
        close,
    )


@pytest.mark.parametrize("elements", [1, 300, 1 << 18])
@pytest.mark.parametrize("low", [(7, 5), (23, 31)])
def test_chunk_size_does_not_matter_to_two_classes(monkeypatch, elements, low):
    logits, labels = make(low, (23, 31))
    monkeypatch.setattr("segatlas.ops.lattice.step_elements", lambda alone: elements)
    assert_same(lambda x: upsampled_cross_entropy(x, labels), lambda x: plain(x, labels), logits)


@pytest.mark.parametrize("ignore", [1, -1, 300])
def test_any_number_may_stand_for_no_label_beside_two_classes(ignore):
    logits, labels = make((7, 5), (23, 31))
    labels[labels == 1 if ignore == 1 else labels == 255] = ignore
    labels[labels == 255] = 0
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, ignore_index=ignore),
        lambda x: cross_entropy(interpolate(x, (23, 31), mode="bilinear"), labels, ignore_index=ignore),
        logits,
    )


@pytest.mark.parametrize("label", [2, 254, -3])
def test_a_label_of_no_class_is_refused_beside_ignored_ones(label):
    logits, labels = make((7, 5), (23, 31))
    labels[1, 20, 30] = label
    with pytest.raises(UsageError, match=rf"label {label} in a loss over 2 classes"):
        upsampled_cross_entropy(logits, labels)
