from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, pixels

from segatlas.losses import Ohem


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.3, 1), (0.01, 50), (0.7, 10**6)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.5, 3.0)])
def test_it_is_the_mean_over_pixels_below_the_threshold_or_among_the_hardest(threshold, min_kept, weights):
    logits, labels = example()
    p, truth = pixels(logits, labels)
    true = p[range(len(p)), truth]
    hardest = np.argsort(true)[:min_kept]
    kept = sorted(set(hardest) | set(np.flatnonzero(true < threshold)))
    weight = np.array(weights)[truth[kept]]
    expected = -(weight * np.log(true[kept])).sum() / weight.sum()
    loss = Ohem(threshold=threshold, min_kept=min_kept)(logits, labels, CANVAS, class_weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (len(kept) < len(p)) == (min_kept < len(p))


def test_by_count_it_is_the_sum_of_the_weighted_pixels_over_how_many_are_kept():
    logits, labels = example()
    p, truth = pixels(logits, labels)
    true = p[range(len(p)), truth]
    kept = np.flatnonzero(true < 0.3)
    weights = (0.5, 2.0, 1.5, 3.0)
    expected = -(np.array(weights)[truth[kept]] * np.log(true[kept])).mean()
    loss = Ohem(threshold=0.3, min_kept=1, by_count=True)(logits, labels, CANVAS, class_weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="two divisors"):
        Ohem(by_count=True, count_ignored=True)
