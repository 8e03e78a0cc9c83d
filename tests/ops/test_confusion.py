import numpy as np
import pytest
import torch

from segatlas.errors import UsageError
from segatlas.ops.confusion import confusion


def slow(prediction: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for guess, truth in zip(prediction.ravel(), label.ravel(), strict=True):
        if truth != 255:
            matrix[truth, guess] += 1
    return matrix


def maps(kind: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    label = generator.integers(0, 5, (8, 8), dtype=np.uint8)
    label[0] = 255
    if kind == "blocks":
        label = np.kron(label, np.ones((6, 6), np.uint8))
    prediction = np.where(generator.random(label.shape) < (0.02 if kind == "blocks" else 0.5), 1, label % 5)
    return prediction.astype(np.uint8), label


@pytest.mark.parametrize("kind", ["blocks", "noise"])
@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, lambda a: torch.from_numpy(a).int()])
def test_counts_equal_a_pixel_loop(kind, form):
    prediction, label = maps(kind)
    assert np.array_equal(confusion(form(prediction), form(label), 5).numpy(), slow(prediction, label, 5))


def test_both_ways_of_counting_are_taken():
    # the two kinds above lie on either side of the switch
    for kind, runs_pay in (("blocks", True), ("noise", False)):
        prediction, label = maps(kind)
        pair = label.ravel().astype(int) * 256 + prediction.ravel()
        assert bool(np.count_nonzero(np.diff(pair)) * 4 <= pair.size) == runs_pay


def test_what_is_predicted_on_ignored_pixels_does_not_count():
    label = np.array([[0, 255, 1]], np.uint8)
    assert confusion(np.array([[0, 77, 1]], np.uint8), label, 2).tolist() == [[1, 0], [0, 1]]


def test_an_empty_pair_counts_nothing():
    assert confusion(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), 3).sum() == 0


@pytest.mark.parametrize(("prediction", "label", "what"), [(5, 0, "prediction holds 5"), (0, 4, "label holds 4")])
def test_a_value_that_names_no_class_is_an_error(prediction, label, what):
    with pytest.raises(UsageError, match=what):
        confusion(np.full((2, 2), prediction, np.uint8), np.full((2, 2), label, np.uint8), 3)


def test_shapes_must_agree():
    with pytest.raises(UsageError, match="differ in shape"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
