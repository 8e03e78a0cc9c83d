"""Semantic scores against torchmetrics, the rule of Cityscapes' own script, and numbers worked out by hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.results import semantic_metrics, semantic_pair

from segatlas.errors import DataError
from segatlas.metrics import create

IGNORE = 255
CITYSCAPES_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids that Cityscapes scores, in the order of the train ids 0..18."""


def random_pair(seed: int, size: tuple[int, int] = (24, 31), classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = generator.choice([*range(classes), IGNORE], size).astype(np.uint8)
    noise = generator.integers(0, classes, size)
    prediction = np.where((generator.random(size) < 0.6) & (label != IGNORE), label, noise).astype(np.uint8)
    return prediction, label


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def test_numbers_equal_torchmetrics() -> None:
    from torchmetrics import classification

    arguments = {"num_classes": 5, "ignore_index": IGNORE}
    oracles = {
        "confusion": classification.MulticlassConfusionMatrix(**arguments),
        "iou": classification.MulticlassJaccardIndex(average="none", **arguments),
        "dice": classification.MulticlassF1Score(average="none", **arguments),
        "precision": classification.MulticlassPrecision(average="none", **arguments),
        "recall": classification.MulticlassRecall(average="none", **arguments),
        "pixel_accuracy": classification.MulticlassAccuracy(average="micro", **arguments),
        "mean_accuracy": classification.MulticlassAccuracy(average="macro", **arguments),
        "kappa": classification.MulticlassCohenKappa(**arguments),
    }
    metrics = semantic_metrics(names(5))
    for seed in range(3):
        prediction, label = random_pair(seed)
        metrics.update(*semantic_pair(prediction, label))
        for oracle in oracles.values():
            oracle.update(torch.from_numpy(prediction).long()[None], torch.from_numpy(label).long()[None])
    scores = metrics.compute()
    assert np.array_equal(metrics.state()["confusion.matrix"], oracles.pop("confusion").compute().numpy())
    for name, oracle in oracles.items():
        assert np.allclose(getattr(scores, name), oracle.compute().numpy(), atol=1e-6), name
    assert scores.miou == pytest.approx(np.mean(scores.iou))


def cityscapes_iou(prediction_ids: np.ndarray, truth_ids: np.ndarray, label: int) -> float:
    """IoU as the official evaluation counts it: a pixel whose truth is an ignored label is left out of all counts."""
    scored = np.isin(truth_ids, CITYSCAPES_EVALUATED)
    true_positive = int(((prediction_ids == label) & (truth_ids == label)).sum())
    false_negative = int((truth_ids == label).sum()) - true_positive
    false_positive = int(((prediction_ids == label) & (truth_ids != label) & scored).sum())
    whole = true_positive + false_positive + false_negative
    return true_positive / whole if whole else math.nan


def check_against_cityscapes(truth_ids: np.ndarray, seed: int) -> None:
    to_train = np.full(256, IGNORE, np.uint8)
    to_train[list(CITYSCAPES_EVALUATED)] = np.arange(19)
    generator = np.random.default_rng(seed)
    noise = generator.choice(CITYSCAPES_EVALUATED, truth_ids.shape)
    keep = (generator.random(truth_ids.shape) < 0.7) & np.isin(truth_ids, CITYSCAPES_EVALUATED)
    prediction_ids = np.where(keep, truth_ids, noise)
    metrics = create(["confusion"], names(19))
    metrics.update(*semantic_pair(to_train[prediction_ids], to_train[truth_ids]))
    scores = metrics.compute()
    official = [cityscapes_iou(prediction_ids, truth_ids, label) for label in CITYSCAPES_EVALUATED]
    assert np.allclose(scores.iou, official, equal_nan=True)
    assert scores.miou == pytest.approx(np.nanmean(official))


def test_iou_follows_the_official_rule_on_random_cityscapes_labels() -> None:
    check_against_cityscapes(np.random.default_rng(1).integers(0, 34, (64, 96)), seed=2)


def test_iou_follows_the_official_rule_on_real_cityscapes_labels() -> None:
    from PIL import Image

    shared = Path(os.environ.get("SEGATLAS_SHARED", Path(__file__).parents[2].parent / "shared"))
    files = sorted(shared.glob("data/samples/cityscapes*/**/*labelIds.png"))
    if not files:
        pytest.skip(f"no Cityscapes labels under {shared}")
    check_against_cityscapes(np.array(Image.open(files[0])), seed=3)


def test_two_classes_give_the_numbers_worked_out_by_hand() -> None:
    # Truth: 6 pixels of a, 4 of b. Predicted right: 5 of a, 2 of b.
    label = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], np.uint8)
    metrics = semantic_metrics(["a", "b"])
    metrics.update(*semantic_pair(prediction, label))
    scores = metrics.compute()
    assert scores.iou == pytest.approx((5 / 8, 2 / 5))
    assert scores.dice == pytest.approx((10 / 13, 4 / 7))
    assert scores.precision == pytest.approx((5 / 7, 2 / 3))
    assert scores.recall == pytest.approx((5 / 6, 2 / 4))
    assert (scores.support, scores.predicted) == ((6, 4), (7, 3))
    assert scores.miou == pytest.approx((5 / 8 + 2 / 5) / 2)
    assert scores.pixel_accuracy == pytest.approx(0.7)
    assert scores.mean_accuracy == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(0.6 * 5 / 8 + 0.4 * 2 / 5)
    chance = (6 * 7 + 4 * 3) / 100
    assert scores.kappa == pytest.approx((0.7 - chance) / (1 - chance))
    assert scores.summary()["recall_small"] == pytest.approx(0.7)
    assert scores.per_class()[1]["objects_small"] == 1


def test_a_class_that_never_occurs_is_in_no_mean() -> None:
    metrics = semantic_metrics(names(3))
    metrics.update(*semantic_pair(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)))
    scores = metrics.compute()
    assert scores.miou == scores.mean_dice == scores.mean_accuracy == 1
    assert all(math.isnan(value) for value in (*scores.iou[1:], *scores.recall[1:], scores.boundary_iou[1]))
    assert scores.summary()["mean_boundary_iou"] == 1
    assert math.isnan(scores.kappa)
    assert math.isnan(scores.boundary_f[0])


def test_a_class_only_predicted_lowers_miou_but_not_the_ground_truth_mean() -> None:
    label = np.zeros((2, 5), np.uint8)
    prediction = label.copy()
    prediction[0, 0] = 1
    metrics = semantic_metrics(names(2))
    metrics.update(*semantic_pair(prediction, label))
    scores = metrics.compute()
    assert scores.miou == pytest.approx(0.9 / 2)
    assert scores.miou_ground_truth_only == pytest.approx(0.9)
    assert scores.boundary_f == (0.0, 0.0)


def test_predictions_on_ignored_pixels_change_no_number() -> None:
    prediction, label = random_pair(0)
    other = np.where(label == IGNORE, 4, prediction).astype(np.uint8)
    counted = []
    for variant in (prediction, other, torch.from_numpy(other)):
        metrics = semantic_metrics(names(5))
        metrics.update(*semantic_pair(variant, label))
        counted.append(metrics.state())
    for name in counted[0]:
        assert np.array_equal(counted[0][name], counted[1][name]), name
        assert np.array_equal(counted[0][name], counted[2][name]), name


def test_merged_states_equal_one_pass() -> None:
    whole, parts = semantic_metrics(names(5)), [semantic_metrics(names(5)) for _ in range(2)]
    for seed in range(4):
        pair = random_pair(seed)
        whole.update(*semantic_pair(*pair))
        parts[seed % 2].update(*semantic_pair(*pair))
    parts[0].merge(parts[1].state())
    assert parts[0].compute() == whole.compute()
    assert parts[0].compute().images == 4


def test_merging_counts_of_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="same shapes"):
        semantic_metrics(names(3)).merge(semantic_metrics(names(2)).state())


def test_scores_do_not_change_when_later_images_come_in() -> None:
    metrics = semantic_metrics(names(5))
    metrics.update(*semantic_pair(*random_pair(0)))
    state, scores = metrics.state(), metrics.compute()
    metrics.update(*semantic_pair(*random_pair(1)))
    assert state["confusion.matrix"].sum() < metrics.state()["confusion.matrix"].sum()
    assert scores.images == 1


def test_update_returns_the_miou_of_that_image_alone() -> None:
    metrics, alone = semantic_metrics(names(5)), semantic_metrics(names(5))
    metrics.update(*semantic_pair(*random_pair(0)))
    score = metrics.update(*semantic_pair(*random_pair(1)))
    alone.update(*semantic_pair(*random_pair(1)))
    assert score == alone.compute().miou != metrics.compute().miou
    empty = np.full((2, 2), IGNORE, np.uint8)
    assert math.isnan(metrics.update(*semantic_pair(empty, empty)))


def test_rows_are_truth_and_columns_prediction() -> None:
    metrics = semantic_metrics(names(2))
    metrics.update(*semantic_pair(np.ones((1, 3), np.uint8), np.zeros((1, 3), np.uint8)))
    (matrix,) = metrics.compute().matrices
    assert (matrix.name, matrix.values.tolist()) == ("confusion", [[0, 3], [0, 0]])


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), "one size"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), "one size"),
        (np.full((2, 2), 3), np.zeros((2, 2)), "prediction holds value 3"),
        (np.full((2, 2), 256), np.zeros((2, 2)), "prediction holds value 256"),
        (np.zeros((2, 2)), np.full((2, 2), 89), "label holds value 89; expected 0..2 or 255"),
        (np.zeros((2, 2)), np.full((2, 2), -1), "label holds value -1"),
    ],
)
def test_maps_that_do_not_fit_are_errors(prediction: np.ndarray, label: np.ndarray, message: str) -> None:
    metrics = semantic_metrics(names(3))
    with pytest.raises(DataError, match=message):
        metrics.update(*semantic_pair(prediction.astype(np.int64), label.astype(np.int64)))
    assert metrics.compute().images == 0


def test_nothing_counted_gives_undefined_numbers_not_zeros() -> None:
    scores = semantic_metrics(names(2)).compute()
    assert scores.images == 0
    assert all(math.isnan(value) for value in (scores.miou, scores.pixel_accuracy, scores.kappa))
    assert scores == semantic_metrics(names(2)).compute()


def test_kappa_survives_more_pixels_than_int64_can_square() -> None:
    metrics = create(["confusion"], names(2))
    big = 4_000_000_000
    metrics.merge({"confusion.matrix": np.array([[big, 0], [0, big]]), "images": np.array([1])})
    assert metrics.compute().kappa == pytest.approx(1)


def test_a_class_of_the_truth_that_is_predicted_nowhere_is_named_and_one_of_neither_is_not() -> None:
    metrics = semantic_metrics(("ground", "house", "tree", "water"))
    metrics.update(*semantic_pair(np.array([[0, 0, 2]], np.uint8), np.array([[0, 1, 0]], np.uint8)))
    assert metrics.compute().never_predicted == ("house",)
