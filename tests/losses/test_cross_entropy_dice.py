from __future__ import annotations

import pytest
import torch
from fakes.logits import CANVAS, example

from segatlas.losses import CrossEntropy, CrossEntropyDice, Dice


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_it_mixes_cross_entropy_and_dice_by_the_fraction(fraction):
    logits, labels = example()
    weights = torch.tensor([0.5, 2.0, 1.5, 3.0])
    loss = CrossEntropyDice(label_smoothing=0.1, dice_fraction=fraction, smooth=2.0)
    first = CrossEntropy(label_smoothing=0.1)(logits, labels, CANVAS, class_weights=weights)
    second = Dice(smooth=2.0)(logits, labels, CANVAS, class_weights=weights)
    expected = (1 - fraction) * first.item() + fraction * second.item()
    assert loss(logits, labels, CANVAS, class_weights=weights).item() == pytest.approx(expected, rel=1e-6)
