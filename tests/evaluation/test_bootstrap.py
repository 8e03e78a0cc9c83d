"""The paired bootstrap beside a loop that adds up matrices draw by draw."""

from __future__ import annotations

import numpy as np
import pytest

from segatlas.evaluation.bootstrap import Measured, bootstrap, interval, of_whole_set, resampled
from segatlas.evaluation.image_counts import ImageCounts
from segatlas.metrics import create
from segatlas.structures import Result, SemanticTarget

CLASSES = ("sky", "road", "pole")
OPTIONS = {"small_classes": ("pole",), "size_bounds": (6, 20), "boundary": False}


def pairs(seed: int, images: int = 7, wrong: float = 0.3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return predictions and labels of blocks; in some images there is no pole, in truth and prediction."""
    truth = np.random.default_rng(0)
    generator = np.random.default_rng(seed)
    found = []
    for index in range(images):
        label = np.kron(truth.integers(0, 2 + index % 2, (4, 5)), np.ones((2, 3))).astype(np.uint8)
        label[0] = 255
        other = generator.integers(0, 2 + index % 2, label.shape).astype(np.uint8)
        found.append((np.where(generator.random(label.shape) < wrong, other, label), label))
    return found


def metrics_of(some: list[tuple[np.ndarray, np.ndarray]]):
    metrics = create(["confusion", "boundary", "object_size", "small_classes"], CLASSES, OPTIONS)
    for prediction, label in some:
        metrics.update(Result(class_map=np.where(label == 255, 0, prediction)), SemanticTarget(label))
    return metrics


def counts_of(some: list[tuple[np.ndarray, np.ndarray]]) -> ImageCounts:
    counts = ImageCounts.empty(metrics_of([]))
    for pair in some:
        counts.add(metrics_of([pair]))
    return counts


MEASURED = Measured(classes=CLASSES, small=(2,), with_sizes=True)


def test_the_numbers_of_the_whole_set_are_those_of_an_evaluation():
    some = pairs(1)
    found, scores = of_whole_set(counts_of(some), MEASURED), metrics_of(some).compute()
    for name, value in found.items():
        expected = scores.iou[CLASSES.index(name[4:])] if name.startswith("iou.") else scores.whole[name]
        assert value == pytest.approx(expected, abs=1e-15, nan_ok=True), name


def test_draws_equal_evaluations_of_the_images_drawn(monkeypatch):
    monkeypatch.setattr("segatlas.evaluation.bootstrap.CHUNK", 140)  # three draws at a time
    runs = [pairs(1), pairs(2)]
    drawn = bootstrap([counts_of(run) for run in runs], MEASURED, draws=10, seed=3)
    rows = np.random.default_rng(3).integers(0, 7, (10, 7))
    assert np.array_equal(np.concatenate([*resampled(7, 10, 3, 3)]), rows)
    for run, values in zip(runs, drawn, strict=True):
        for draw, row in enumerate(rows):
            scores = metrics_of([run[image] for image in row]).compute()
            for name, found in values.items():
                expected = scores.iou[CLASSES.index(name[4:])] if name.startswith("iou.") else scores.whole[name]
                assert found[draw] == pytest.approx(expected, abs=1e-15, nan_ok=True), (draw, name)


def test_a_draw_without_a_class_has_no_number_of_it():
    blank = [(label * 0, label * 0) for _, label in pairs(1)]
    drawn = bootstrap([counts_of(blank)], MEASURED, draws=5)[0]
    assert np.isnan(drawn["iou.pole"]).all()
    assert np.isnan(interval(drawn["iou.pole"])).all()
    assert (drawn["miou"] == 1).all()


def test_equal_seeds_draw_the_same_images_and_others_do_not():
    first, again, other = (np.concatenate([*resampled(50, 20, seed, 7)]) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
