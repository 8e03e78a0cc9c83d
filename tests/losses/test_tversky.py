from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, overlap

from segatlas.losses import Tversky


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "smooth"), [(0.3, 0.7, 1, 1), (0.8, 0.1, 0.75, 0), (0.5, 0.5, 2, 3)]
)
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
def test_tversky_weighs_false_positives_and_negatives(alpha, beta, gamma, smooth, weights):
    logits, labels = example()
    values = []
    for k in range(3):
        tp, fp, fn = overlap(logits, labels, k)
        values.append((1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma)
    expected = np.average(values, weights=None if weights is None else weights[:3])
    given = None if weights is None else torch.tensor(weights)
    loss = Tversky(alpha=alpha, beta=beta, gamma=gamma, smooth=smooth)
    assert loss(logits, labels, CANVAS, class_weights=given).item() == pytest.approx(expected, rel=1e-5)


def test_a_perfect_prediction_costs_nothing_and_has_finite_gradients():
    labels = torch.randint(0, 3, (1, 6, 6), generator=torch.Generator().manual_seed(0))
    logits = (torch.nn.functional.one_hot(labels, 4).movedim(-1, 1) * 200.0).requires_grad_()
    value = Tversky(smooth=0, gamma=0.5)(logits, labels)
    assert value.item() == pytest.approx(0, abs=1e-3)
    assert torch.autograd.grad(value, logits)[0].isfinite().all()
