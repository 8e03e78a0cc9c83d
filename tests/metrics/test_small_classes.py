"""Numbers of classes that are named as small, beside those of the confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest

from segatlas.errors import UsageError
from segatlas.metrics import create
from segatlas.metrics.small_classes import indices_of
from segatlas.structures import Result, SemanticTarget

CLASSES = ("Sky", "Pole", "Road", "Sign", "sign")


def test_the_means_are_over_the_named_classes_alone():
    draw = np.random.default_rng(0)
    label = draw.choice([0, 1, 2, 255], (20, 30)).astype(np.uint8)
    metrics = create(["confusion", "small_classes"], CLASSES, {"small_classes": ("road", "Pole", "sign")})
    metrics.update(Result(class_map=draw.integers(0, 3, label.shape).astype(np.uint8)), SemanticTarget(label))
    scores = metrics.compute()
    assert scores.small_classes_iou == pytest.approx((scores.iou[1] + scores.iou[2]) / 2)
    assert scores.small_classes_recall == pytest.approx((scores.recall[1] + scores.recall[2]) / 2)
    assert scores.settings == ("small classes: Road, Pole, sign",)


def test_nothing_is_counted_where_no_class_is_named():
    metrics = create(["confusion", "small_classes"], CLASSES, {"small_classes": ()})
    assert "small_classes_iou" not in metrics.compute().whole


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("pole", "rod"), "no class 'rod'; did you mean 'Road'? There are: Sky, Pole"),
        (("SIGN",), "no class 'SIGN'"),
        (("pole", "Pole"), "'Pole' is named twice"),
    ],
)
def test_names_of_no_class_are_refused_with_the_nearest(names, message):
    with pytest.raises(UsageError) as caught:
        indices_of(names, CLASSES)
    assert message in str(caught.value)
