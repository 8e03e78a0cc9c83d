from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, overlap

from segatlas.losses import Dice


@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
def test_dice_is_the_mean_over_the_classes_in_the_labels(smooth, weights):
    logits, labels = example()
    values = []
    for k in range(3):  # class 3 does not occur
        tp, fp, fn = overlap(logits, labels, k)
        values.append(1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth))
    expected = np.average(values, weights=None if weights is None else weights[:3])
    given = None if weights is None else torch.tensor(weights)
    loss = Dice(smooth=smooth)(logits, labels, CANVAS, class_weights=given)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_costs_nothing_and_has_finite_gradients():
    labels = torch.randint(0, 3, (1, 6, 6), generator=torch.Generator().manual_seed(0))
    logits = (torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) * 200.0).requires_grad_()
    value = Dice(smooth=0)(logits, labels)
    assert value.item() == pytest.approx(0, abs=1e-3)
    assert torch.autograd.grad(value, logits)[0].isfinite().all()
