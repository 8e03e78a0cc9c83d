from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, pixels

from segatlas.losses import CrossEntropy


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.5, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_equals_the_weighted_mean_written_out(align_corners, weights, smoothing):
    logits, labels = example()
    p, truth = pixels(logits, labels, align_corners=align_corners)
    weight = np.ones(4) if weights is None else np.array(weights)
    target = np.eye(4)[truth] * (1 - smoothing) + smoothing / 4
    expected = -(target * weight * np.log(p)).sum() / weight[truth].sum()
    given = None if weights is None else torch.tensor(weights)
    loss = CrossEntropy(label_smoothing=smoothing)(logits, labels, CANVAS, align_corners, given)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_canvas_is_the_labels_by_default():
    logits, labels = example()
    p, truth = pixels(logits, labels, canvas=(13, 18))
    assert CrossEntropy()(logits, labels).item() == pytest.approx(-np.log(p[range(len(p)), truth]).mean(), rel=1e-5)
