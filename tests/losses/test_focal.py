from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, pixels

from segatlas.losses import CrossEntropy, Focal


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.5, 3.0)])
def test_it_is_the_weighted_mean_of_the_damped_cross_entropy(gamma, weights):
    logits, labels = example()
    p, truth = pixels(logits, labels)
    true, weight = p[range(len(p)), truth], np.array(weights)[truth]
    expected = -(weight * (1 - true) ** gamma * np.log(true)).sum() / weight.sum()
    loss = Focal(gamma=gamma)(logits, labels, CANVAS, class_weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_with_gamma_zero_it_is_cross_entropy():
    logits, labels = example()
    weights = torch.tensor([0.5, 2.0, 1.5, 3.0])
    values = [loss(logits, labels, CANVAS, class_weights=weights) for loss in (Focal(gamma=0.0), CrossEntropy())]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_certain_pixels_have_finite_gradients_also_below_gamma_one():
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 300.0
    logits.requires_grad_()
    Focal(gamma=0.5)(logits, labels).backward()
    assert logits.grad.isfinite().all()
