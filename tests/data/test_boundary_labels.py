from __future__ import annotations

import numpy as np
import pytest

from segatlas.config.transforms import TransformsConfig
from segatlas.data.sample import Sample
from segatlas.data.transforms import BoundaryLabels, Pipeline
from segatlas.errors import UsageError
from segatlas.structures import InstancesTarget, SemanticTarget
from segatlas.structures.class_boundaries import class_boundaries


def example() -> np.ndarray:
    draw = np.random.default_rng(0)
    labels = np.kron(draw.integers(0, 4, (4, 5)), np.ones((7, 6))).astype(np.uint8)
    labels[5:9, 3:15] = 255
    return labels


def slow(labels: np.ndarray, width: int, rest: int) -> np.ndarray:
    made = np.full(labels.shape, rest, np.uint8)
    for row, column in np.ndindex(labels.shape):
        own = labels[row, column]
        window = labels[max(row - width, 0) : row + width + 1, max(column - width, 0) : column + width + 1]
        if own == 255 or ((window != own) & (window != 255)).any():
            made[row, column] = own
    return made


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("rest", [4, 255])
def test_each_pixel_near_another_class_keeps_its_own_and_others_become_the_rest(width, rest):
    labels = example()
    found = class_boundaries(labels, width=width, rest=rest)
    assert np.array_equal(found, slow(labels, width, rest))
    assert len(np.unique(found)) > 3


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        (example(), {"width": 0}, "width: got 0, expected 1..1000"),
        (example(), {"rest": 2}, "rest: 2 is a class of these labels"),
        (example(), {"rest": 256}, "rest: got 256"),
        (example().astype(np.int64), {}, "got int64"),
        (example()[None], {}, r"of shape \(1, 28, 30\)"),
    ],
)
def test_what_makes_no_boundary_labels_is_told(labels, options, expected):
    with pytest.raises(UsageError, match=expected):
        class_boundaries(labels, **options)


def test_a_training_sample_has_the_boundaries_of_its_own_size():
    labels = example()
    transforms = TransformsConfig(flip=0, resize="56x60", boundary_labels={"width": 3})
    pipeline = Pipeline.from_config(transforms, (0.0,) * 3, (1.0,) * 3, 255, 3)
    sample = Sample(image=np.zeros((*labels.shape, 3), np.uint8), target=SemanticTarget(labels), key="a")
    made = pipeline(sample, np.random.default_rng(0)).label
    plain = Pipeline.from_config(TransformsConfig(flip=0, resize="56x60"), (0.0,) * 3, (1.0,) * 3, 255, 3)
    assert np.array_equal(made, slow(plain(sample, np.random.default_rng(0)).label, 3, 255))
    assert (made != plain(sample, np.random.default_rng(0)).label).any()


def test_objects_have_no_boundary_labels():
    target = InstancesTarget(np.zeros((0, 4, 4), bool), np.zeros(0), np.zeros(0, bool))
    with pytest.raises(UsageError, match="objects have no map of labels"):
        BoundaryLabels().apply(target)
