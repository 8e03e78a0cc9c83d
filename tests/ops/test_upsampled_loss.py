from __future__ import annotations

import pytest
import torch
from fakes.largest import Largest
from torch.nn.functional import cross_entropy, interpolate

from segatlas.errors import UsageError
from segatlas.ops import (
    small_maps,
    upsampled_cross_entropy,
    upsampled_log_likelihood,
    upsampled_ohem,
    upsampled_overlap,
)

# (h, w) logits, (H, W) labels, canvas
GEOMETRIES = [
    ((8, 9), (32, 36), None),
    ((7, 5), (23, 31), None),
    ((8, 8), (27, 30), (32, 32)),
    ((16, 12), (8, 6), None),
    ((6, 4), (6, 4), None),
    ((1, 1), (70, 90), None),
    ((2, 3), (150, 40), None),
]
CLASSES = 5


def make(low, size, dtype=torch.float64, count=2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((count, CLASSES, *low), generator=generator).to(dtype) * 3
    labels = torch.randint(0, CLASSES, (count, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, labels


def upsampled(logits, labels, canvas=None, align_corners=False):
    size = canvas or labels.shape[1:]
    full = interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)
    return full[..., : labels.shape[1], : labels.shape[2]]


def value_and_gradient(function, logits):
    logits = logits.detach().clone().requires_grad_()
    loss = function(logits)
    loss.backward()
    return loss.detach(), logits.grad


def assert_same(ours, theirs, logits, value=1e-12, gradient=1e-10):
    our_loss, our_gradient = value_and_gradient(ours, logits)
    their_loss, their_gradient = value_and_gradient(theirs, logits)
    assert abs(our_loss - their_loss) <= value * abs(their_loss)
    assert (our_gradient - their_gradient).norm() <= gradient * their_gradient.norm()


@pytest.fixture(autouse=True, params=["walked", "at once"])
def way(request, monkeypatch):
    """All maps here are small; they are walked, too."""
    if request.param == "walked":
        monkeypatch.setattr(small_maps, "MOST", 0)
    return request.param


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("low", "size", "canvas"), GEOMETRIES)
def test_cross_entropy_equals_torch_at_full_size(low, size, canvas, align_corners):
    logits, labels = make(low, size)
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, canvas=canvas, align_corners=align_corners),
        lambda x: cross_entropy(upsampled(x, labels, canvas, align_corners), labels, ignore_index=255),
        logits,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_and_smoothing_equal_torch(smoothing, weighted):
    logits, labels = make((7, 5), (23, 31))
    weight = torch.tensor([0.3, 2.0, 1.0, 0.0, 5.0], dtype=torch.float64) if weighted else None
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, weight=weight, label_smoothing=smoothing),
        lambda x: cross_entropy(
            upsampled(x, labels), labels, weight=weight, label_smoothing=smoothing, ignore_index=255
        ),
        logits,
    )


def test_float32_is_as_close_as_promised():
    logits, labels = make((16, 24), (64, 96), torch.float32)
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels),
        lambda x: cross_entropy(upsampled(x, labels), labels, ignore_index=255),
        logits,
        value=1e-6,
        gradient=1e-5,
    )


@pytest.mark.parametrize(
    "loss",
    [
        upsampled_cross_entropy,
        upsampled_ohem,
        lambda x, y: upsampled_ohem(x, y, threshold=0.0),
        lambda x, y: torch.stack(upsampled_overlap(x, y)).sum(),
        lambda x, y: upsampled_log_likelihood(x, y).sum(),
    ],
)
def test_no_array_is_larger_than_the_logits(loss, monkeypatch):
    monkeypatch.setattr(small_maps, "MOST", 0)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, 24, 64, 64), generator=generator).requires_grad_()
    labels = torch.randint(0, 24, (1, 256, 256), generator=generator).byte()
    with Largest(logits, labels) as watch:
        loss(logits, labels).backward()
    assert watch.bytes <= 4 * logits.numel()  # the full-size logits would be 16 times that


@pytest.mark.parametrize("loss", [upsampled_cross_entropy, upsampled_ohem])
def test_labels_are_left_as_they_are(loss):
    logits, labels = make((7, 5), (23, 31))
    given = labels.byte()
    loss(logits, given)
    assert torch.equal(given, labels.byte())


@pytest.mark.parametrize("loss", [upsampled_cross_entropy, upsampled_ohem])
def test_byte_labels_and_another_ignore_index_give_the_same(loss):
    logits, labels = make((7, 5), (23, 31))
    moved = labels.masked_fill(labels == 255, 99)
    expected = loss(logits, labels)
    assert torch.equal(loss(logits, labels.byte()), expected)
    assert torch.equal(loss(logits, moved, ignore_index=99), expected)


def test_half_precision_logits_are_computed_in_float32():
    logits, labels = make((7, 5), (23, 31), torch.bfloat16)
    expected, gradient = value_and_gradient(lambda x: upsampled_cross_entropy(x, labels), logits.float())
    loss, half = value_and_gradient(lambda x: upsampled_cross_entropy(x, labels), logits)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, gradient.bfloat16())


def test_autocast_does_not_lower_the_precision():
    logits, labels = make((7, 5), (23, 31), torch.float32)
    expected = [upsampled_cross_entropy(logits, labels), *upsampled_overlap(logits, labels)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [upsampled_cross_entropy(logits, labels), *upsampled_overlap(logits, labels)]
    assert all(torch.equal(a, b) for a, b in zip(inside, expected, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_of_the_logits_does_not_matter(layout):
    logits, labels = make((7, 5), (23, 31))
    _, expected = value_and_gradient(lambda x: upsampled_cross_entropy(x, labels), logits)
    _, gradient = value_and_gradient(
        lambda x: upsampled_cross_entropy(x.contiguous(memory_format=layout), labels), logits
    )
    torch.testing.assert_close(gradient, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("elements", [1, 300, 1 << 18])
def test_chunk_size_does_not_matter(monkeypatch, elements):
    logits, labels = make((7, 5), (23, 31))
    expected = value_and_gradient(lambda x: cross_entropy(upsampled(x, labels), labels, ignore_index=255), logits)
    monkeypatch.setattr("segatlas.ops.lattice.step_elements", lambda alone: elements)
    torch.testing.assert_close(value_and_gradient(lambda x: upsampled_cross_entropy(x, labels), logits), expected)


def test_logits_of_any_magnitude_are_safe():
    # Opposite extremes in neighbouring samples: the cheap shift underflows here, the safe form must take over.
    logits, labels = make((4, 4), (16, 16), torch.float32)
    logits = logits * 400
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels),
        lambda x: cross_entropy(upsampled(x, labels), labels, ignore_index=255),
        logits,
        value=1e-6,
        gradient=1e-5,
    )


def test_pixel_weights_enter_sum_and_divisor():
    logits, labels = make((7, 5), (23, 31))
    pixel_weight = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([0.3, 2.0, 1.0, 0.5, 5.0], dtype=torch.float64)

    def slow(x):
        each = cross_entropy(upsampled(x, labels), labels, weight=weight, ignore_index=255, reduction="none")
        labelled = labels != 255
        factor = weight[labels.masked_fill(~labelled, 0)] * labelled
        return (each * pixel_weight).sum() / (pixel_weight * factor).sum()

    assert_same(lambda x: upsampled_cross_entropy(x, labels, weight=weight, pixel_weight=pixel_weight), slow, logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_passes_gradcheck(smoothing):
    logits, labels = make((3, 2), (7, 9), count=1)
    function = lambda x: upsampled_cross_entropy(x, labels, label_smoothing=smoothing)  # noqa: E731
    assert torch.autograd.gradcheck(function, logits.requires_grad_())


def test_gradient_is_scaled_by_what_comes_from_above():
    logits, labels = make((3, 2), (7, 9))
    _, once = value_and_gradient(lambda x: upsampled_cross_entropy(x, labels), logits)
    _, thrice = value_and_gradient(lambda x: 3 * upsampled_cross_entropy(x, labels), logits)
    torch.testing.assert_close(thrice, 3 * once)


@pytest.mark.parametrize("elements", [1, 200, 465, 1 << 18])
@pytest.mark.parametrize("size", [(23, 31), (19, 30)])
def test_logits_at_full_size_give_the_same_whatever_rows_are_taken_together(monkeypatch, elements, size):
    logits, labels = make((23, 31), size)
    monkeypatch.setattr("segatlas.ops.lattice.step_elements", lambda alone: elements)

    def cut(x):
        return x[..., : size[0], : size[1]]

    canvas = (23, 31)
    assert_same(
        lambda x: upsampled_cross_entropy(x, labels, canvas=canvas),
        lambda x: cross_entropy(cut(x), labels, ignore_index=255),
        logits,
    )
    known = labels.clamp(max=CLASSES - 1).unsqueeze(1)
    factor = torch.rand(labels.shape, dtype=torch.float64) * (labels != 255)
    assert_same(
        lambda x: (upsampled_log_likelihood(x, labels, canvas=canvas) * factor).sum(),
        lambda x: (cut(x).log_softmax(1).gather(1, known)[:, 0] * factor).sum(),
        logits,
    )


@pytest.mark.parametrize(("low", "size", "canvas"), GEOMETRIES)
def test_log_likelihood_equals_the_full_size_one(low, size, canvas):
    logits, labels = make(low, size)
    factor = torch.rand(labels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def slow(x):
        each = -cross_entropy(upsampled(x, labels, canvas), labels, ignore_index=255, reduction="none")
        return (each * factor).sum()

    assert_same(lambda x: (upsampled_log_likelihood(x, labels, canvas=canvas) * factor).sum(), slow, logits)
    assert (upsampled_log_likelihood(logits, labels, canvas=canvas)[labels == 255] == 0).all()


@pytest.mark.parametrize(("low", "size", "canvas"), GEOMETRIES)
def test_overlap_equals_sums_over_the_full_size_probabilities(low, size, canvas):
    logits, labels = make(low, size)
    labelled = labels != 255
    truth = torch.nn.functional.one_hot(labels.masked_fill(~labelled, 0), CLASSES).permute(0, 3, 1, 2)
    truth = truth * labelled.unsqueeze(1)
    a, b = torch.rand(2, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def slow_sums(x):
        probability = upsampled(x, labels, canvas).softmax(1) * labelled.unsqueeze(1)
        return (probability * truth).sum((0, 2, 3)), probability.sum((0, 2, 3))

    def combine(intersection, predicted):
        return (a * intersection).sum() + (b * predicted**2).sum()

    intersection, predicted, count = upsampled_overlap(logits, labels, canvas=canvas)
    torch.testing.assert_close((intersection, predicted), slow_sums(logits))
    assert torch.equal(count, truth.sum((0, 2, 3)).double())
    assert_same(
        lambda x: combine(*upsampled_overlap(x, labels, canvas=canvas)[:2]), lambda x: combine(*slow_sums(x)), logits
    )


def slow_ohem(logits, labels, threshold, min_kept, weight=None):
    """Sort all probabilities, keep the hard ones, take torch's weighted mean over them."""
    full = upsampled(logits, labels)
    labelled = labels != 255
    probability = full.softmax(1).gather(1, labels.masked_fill(~labelled, 0).unsqueeze(1)).squeeze(1)
    ranked = sorted(probability[labelled].tolist())
    keep = labelled
    if len(ranked) > min_kept:
        keep = labelled & ((probability < threshold) | (probability <= ranked[min_kept - 1]))
    return cross_entropy(full, labels.masked_fill(~keep, 255), weight=weight, ignore_index=255), int(keep.sum())


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.3, 10), (0.05, 400), (0.7, 100_000)])
@pytest.mark.parametrize("weighted", [False, True])
def test_ohem_equals_the_slow_version(threshold, min_kept, weighted):
    logits, labels = make((7, 5), (23, 31))
    weight = torch.tensor([0.3, 2.0, 1.0, 0.5, 5.0], dtype=torch.float64) if weighted else None
    kept = slow_ohem(logits, labels, threshold, min_kept)[1]
    assert kept >= min(min_kept, int((labels != 255).sum()))
    assert_same(
        lambda x: upsampled_ohem(x, labels, threshold=threshold, min_kept=min_kept, weight=weight),
        lambda x: slow_ohem(x, labels, threshold, min_kept, weight)[0],
        logits,
    )


def test_ignored_pixels_do_not_matter():
    # At stride 1 each sample belongs to one pixel, so logits under 255 can be changed alone.
    logits, labels = make((6, 4), (6, 4))
    changed = torch.where((labels == 255).unsqueeze(1), logits + torch.arange(CLASSES).view(-1, 1, 1) * 7, logits)
    for loss in LOSSES:
        assert torch.equal(loss(logits, labels), loss(changed, labels))
        _, gradient = value_and_gradient(lambda x, loss=loss: loss(x, labels), logits)
        assert (gradient.movedim(1, -1)[labels == 255] == 0).all()


LOSSES = [
    upsampled_cross_entropy,
    lambda x, y: upsampled_cross_entropy(x, y, label_smoothing=0.1),
    lambda x, y: upsampled_ohem(x, y, min_kept=5),
    lambda x, y: upsampled_log_likelihood(x, y).sum(),
    lambda x, y: sum(part.sum() for part in upsampled_overlap(x, y)),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_labels_gives_zero_and_a_zero_gradient(loss):
    logits, labels = make((3, 2), (7, 9))
    value, gradient = value_and_gradient(lambda x: loss(x, torch.full_like(labels, 255)), logits)
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_wrong_shapes_and_labels_are_named():
    logits, labels = make((3, 2), (7, 9))
    with pytest.raises(UsageError, match="label 7 in a loss over 5 classes"):
        upsampled_cross_entropy(logits, torch.full_like(labels, 7))
    with pytest.raises(UsageError, match="N, H, W"):
        upsampled_cross_entropy(logits, labels[:1])
    with pytest.raises(UsageError, match="do not fit on the canvas"):
        upsampled_cross_entropy(logits, labels, canvas=(6, 9))
    with pytest.raises(UsageError, match="pixel_weight"):
        upsampled_cross_entropy(logits, labels, pixel_weight=torch.ones(2, 7, 8))
