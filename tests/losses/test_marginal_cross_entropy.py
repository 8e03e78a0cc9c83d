from __future__ import annotations

import pytest
import torch
from fakes.logits import CANVAS, example

from segatlas.errors import UsageError
from segatlas.losses import LOSSES
from segatlas.ops.marginal_loss import upsampled_marginal_cross_entropy
from segatlas.ops.upsampling import upsample_logits

FLAGS = torch.tensor([[True, False, True, False], [True, True, True, True]])


def slow(logits, labels, flags, align_corners=False, weight=None):
    """The loss pixel by pixel, of probabilities."""
    whole = upsample_logits(logits, (13, 18), canvas=CANVAS, align_corners=align_corners).softmax(1)
    total, count = 0.0, 0.0
    for image, label, known in zip(whole, labels, flags, strict=True):
        for row in range(13):
            for column in range(18):
                kind = int(label[row, column])
                if kind == 255:
                    continue
                group = [kind] if known[kind] else [k for k in range(4) if not known[k]]
                own = 1.0 if weight is None else float(torch.stack([weight[k] for k in group]).mean())
                total = total - own * image[group, row, column].sum().log()
                count += own
    return total / count


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.5, 3.0], dtype=torch.float64)])
def test_value_and_gradient_are_those_of_the_slow_form(align_corners, weight):
    logits, labels = example(torch.float64)
    ours = upsampled_marginal_cross_entropy(
        logits, labels, FLAGS, canvas=CANVAS, align_corners=align_corners, weight=weight
    )
    obvious = slow(logits, labels, FLAGS, align_corners, weight)
    torch.testing.assert_close(ours, obvious)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(obvious, logits)[0])


def test_with_all_classes_annotated_it_is_the_cross_entropy():
    logits, labels = example()
    plain = LOSSES["cross_entropy"]()(logits, labels, CANVAS)
    for flags in (None, torch.ones(2, 4, dtype=torch.bool)):
        assert upsampled_marginal_cross_entropy(logits, labels, flags, canvas=CANVAS) == plain
    one_image = torch.stack([torch.ones(4, dtype=torch.bool), FLAGS[0]])
    labels[1] = 255
    torch.testing.assert_close(
        upsampled_marginal_cross_entropy(logits, labels, one_image, canvas=CANVAS),
        LOSSES["cross_entropy"]()(logits, labels, CANVAS),
    )


def test_any_class_that_was_not_annotated_is_right_where_one_of_them_is():
    labels = torch.full((1, 4, 4), 1)
    flags = torch.tensor([[True, False, False]])
    for kind in (1, 2):
        sure = torch.zeros(1, 3, 4, 4)
        sure[:, kind] = 30
        assert upsampled_marginal_cross_entropy(sure, labels, flags) < 1e-6
    wrong = torch.zeros(1, 3, 4, 4)
    wrong[:, 0] = 30
    assert upsampled_marginal_cross_entropy(wrong, labels, flags) > 20


def test_no_labelled_pixel_costs_nothing_and_half_precision_is_computed_in_float32():
    logits, labels = example(torch.bfloat16)
    value = upsampled_marginal_cross_entropy(logits, labels, FLAGS, canvas=CANVAS)
    assert value.dtype == torch.float32
    assert torch.autograd.grad(value, logits)[0].dtype == torch.bfloat16
    nothing = upsampled_marginal_cross_entropy(logits, torch.full_like(labels, 255), FLAGS, canvas=CANVAS)
    assert nothing == 0
    assert torch.autograd.grad(nothing, logits)[0].abs().max() == 0


def test_flags_of_another_number_of_classes_are_refused():
    logits, labels = example()
    with pytest.raises(UsageError, match=r"annotated \(2, 3\) does not fit"):
        upsampled_marginal_cross_entropy(logits, labels, FLAGS[:, :3], canvas=CANVAS)
