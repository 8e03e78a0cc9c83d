from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes.logits import CANVAS, example, pixels

from segatlas.errors import UsageError
from segatlas.losses import Lovasz


def jaccard_loss(truth: np.ndarray, wrong: np.ndarray) -> float:
    """One minus IoU of a class when the pixels of the mask wrong are predicted wrongly."""
    predicted = truth ^ wrong
    return 1 - (truth & predicted).sum() / (truth | predicted).sum()


def slow_of_class(p: np.ndarray, truth: np.ndarray) -> float:
    """The Lovász extension by its definition: sets of the pixels with the largest errors, one pixel more each time."""
    errors = np.abs(truth - p)
    order = np.argsort(-errors)
    total, before, wrong = 0.0, 0.0, np.zeros(len(p), bool)
    for pixel in order:
        wrong[pixel] = True
        after = jaccard_loss(truth, wrong)
        total += errors[pixel] * (after - before)
        before = after
    return total


def slow(p: np.ndarray, truth: np.ndarray, weights: tuple[float, ...]) -> float:
    present = sorted(set(truth.tolist()))
    values = [slow_of_class(p[:, k], truth == k) for k in present]
    return float(np.average(values, weights=[weights[k] for k in present]))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 2.0, 1.5, 3.0)])
def test_it_equals_the_extension_by_its_definition(weights):
    logits, labels = example()
    loss = Lovasz()(logits, labels, CANVAS, class_weights=torch.tensor(weights))
    assert loss.item() == pytest.approx(slow(*pixels(logits, labels), weights), rel=1e-5)


def test_per_image_is_the_mean_over_images_with_labels():
    logits, labels = example()
    logits, labels = torch.cat([logits, logits[:1]]), torch.cat([labels, torch.full_like(labels[:1], 255)])
    singles = [slow(*pixels(logits[i : i + 1], labels[i : i + 1]), (1.0,) * 4) for i in range(2)]
    assert Lovasz(per_image=True)(logits, labels, CANVAS).item() == pytest.approx(np.mean(singles), rel=1e-5)


def test_for_certain_predictions_it_is_one_minus_the_mean_iou():
    labels = torch.tensor([[[0, 0, 0, 1], [1, 1, 1, 2]]])
    predicted = torch.tensor([[[0, 0, 1, 1], [1, 1, 2, 2]]])
    logits = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1) * 100.0
    assert Lovasz()(logits, labels).item() == pytest.approx(1 - (2 / 3 + 3 / 5 + 1 / 2) / 3, rel=1e-6)


def test_wrong_shapes_and_labels_are_named():
    logits, labels = example()
    with pytest.raises(UsageError, match=r"label 3 in a loss over 2 classes"):
        Lovasz()(logits[:, :2], labels.where(labels != 2, 3), CANVAS)
    with pytest.raises(UsageError, match="do not fit on the canvas"):
        Lovasz()(logits, labels, (8, 8))
    with pytest.raises(UsageError, match=r"\(N, H, W\) labels"):
        Lovasz()(logits, labels[0], CANVAS)
