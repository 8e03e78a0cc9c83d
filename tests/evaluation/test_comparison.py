"""Comparisons: planted differences are found, seeds are shown apart, what does not belong together is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace as Some

import numpy as np
import pytest

from segatlas.errors import DataError, UsageError
from segatlas.evaluation.comparison import compare_models
from segatlas.evaluation.comparison_pages import sections
from segatlas.evaluation.image_counts import ImageCounts
from segatlas.evaluation.report import ImageScore, Report
from segatlas.metrics import create
from segatlas.structures import Result, SemanticTarget

CLASSES = ("ground", "wall", "pole")
OPTIONS = {"small_classes": ("pole",), "size_bounds": (10, 200)}


def report(name: str, wrong: float, seed: int, *, images: int = 20, truth: int = 0, classes=CLASSES) -> Report:
    """Score a model that is wrong in a fraction of the pixels of thin poles, and nowhere else."""
    labels, draw = np.random.default_rng(truth), np.random.default_rng(seed)
    names = ["confusion", "object_size", "small_classes"]
    metrics = create(names, classes, OPTIONS)
    counts, scores = ImageCounts.empty(metrics), []
    for index in range(images):
        label = np.zeros((16, 16), np.uint8)
        label[:, 8:] = 1
        label[2:14, labels.integers(0, 16)] = 2
        miss = (label == 2) & (draw.random(label.shape) < wrong)
        one = create(names, classes, OPTIONS)
        score = one.update(Result(class_map=np.where(miss, 0, label)), SemanticTarget(label))
        metrics.merge(one.state())
        counts.add(one)
        scores.append(ImageScore(key=f"image {index}", file=f"{index}.png", score=score))
    return Report(
        scores=metrics.compute(),
        data=Some(name="made", split="val", images=images, root="."),
        model=Some(path=name),
        settings=Some(options=OPTIONS),
        images=tuple(scores),
        worst=(),
        seconds=0.0,
        counts=counts,
    )


def test_a_planted_difference_is_outside_its_interval_and_found_in_the_small_class_alone():
    found = compare_models([[report("a", 0.4, 1)], [report("b", 0.1, 2)]], ["a", "b"], draws=400)
    means = found.pairings[0].means
    assert means["small_classes_iou"].value == pytest.approx(0.3, abs=0.06)
    assert 0 < means["small_classes_iou"].low < means["small_classes_iou"].value < means["small_classes_iou"].high
    assert (means["small_classes_iou"].better, means["miou"].better) == (1.0, 1.0)
    assert means["iou.wall"].low <= means["iou.wall"].value <= means["iou.wall"].high
    assert abs(means["iou.wall"].value) < 0.02
    assert sum(value > 0 for _, value in found.pairings[0].images) >= 18


def test_a_model_beside_itself_differs_by_nothing():
    same = report("a", 0.3, 1)
    means = compare_models([[same], [same]], ["a", "a"], draws=50).pairings[0].means
    defined = [one for one in means.values() if not math.isnan(one.value)]
    assert len(defined) > 6
    assert {(one.value, one.low, one.high, one.better) for one in defined} == {(0.0, 0.0, 0.0, 0.0)}


def test_seeds_are_shown_apart_and_a_difference_within_their_spread_is_marked():
    first, second = [report("a0", 0.2, 1), report("a1", 0.4, 2)], [report("b0", 0.25, 3), report("b1", 0.33, 4)]
    found = compare_models([first, second], ["a", "b"], draws=60, seed=5)
    a, pairing = found.models[0], found.pairings[0]
    each = [one.scores.whole["small_classes_iou"] for one in first]
    assert a.values["small_classes_iou"] == pytest.approx(each)
    assert a.spread("small_classes_iou") == pytest.approx(abs(each[0] - each[1]))
    assert pairing.is_within_spread("small_classes_iou")
    difference = second[1].scores.miou - first[1].scores.miou
    assert pairing.pairs[1]["miou"].value == pytest.approx(difference)
    alone = compare_models([[first[1]], [second[1]]], ["a", "b"], draws=60, seed=5).pairings[0]
    assert alone.means["miou"] == pairing.pairs[1]["miou"]
    titles = [table.title for table in sections(found)]
    assert titles == ["Runs", "b minus a", "Run by run", "Images that lose and gain most"]
    runs, differences = sections(found)[:2]
    assert runs.columns == ("", "1.1", "1.2", "spread of 1", "2.1", "2.2", "spread of 2")
    small = next(row for row in differences.rows if row[0] == "mean IoU, small classes")
    assert small[3].endswith("*")
    uneven = compare_models([first, second[:1]], ["a", "b"], draws=5).pairings[0]
    assert uneven.pairs == ()


def test_the_file_holds_plain_numbers_with_their_definitions(tmp_path):
    found = compare_models([[report("a", 0.3, 1)], [report("b", 0.3, 2)]], ["a", "b"], draws=20)
    stored = json.loads(found.to_json(tmp_path).read_text())
    assert stored["definitions"].keys() >= {"miou", "iou.pole", "iou_small", "interval", "spread"}
    assert (stored["draws"], stored["seed"], stored["data"]["images"]) == (20, 0, 20)
    values = [value for value in stored["models"][0]["runs"][0]["values"].values() if value is not None]
    assert all(math.isfinite(value) for value in values)


def test_other_truths_classes_and_images_are_refused():
    first = report("a", 0.3, 1)
    with pytest.raises(DataError, match=r"a and b were scored with different masks: in \d+ images .* first in image 0"):
        compare_models([[first], [report("b", 0.3, 1, truth=9)]], ["a", "b"], draws=5)
    with pytest.raises(DataError, match="a could score 20 images, b 19, not the same ones"):
        compare_models([[first], [report("b", 0.3, 1, images=19)]], ["a", "b"], draws=5)
    with pytest.raises(DataError, match="a and b have different classes"):
        compare_models([[first], [report("b", 0.3, 1, classes=("ground", "house", "pole"))]], ["a", "b"], draws=5)
    for key, told in (
        ("size_bounds", r"size_bounds=\[10, 200\] and \[9, 200\]"),
        ("small_classes", r"=\[pole\] and \[wall\]"),
    ):
        options = {"size_bounds": (9, 200)} if key == "size_bounds" else {"small_classes": ("wall",)}
        other = dataclasses.replace(first, model=Some(path="b"), settings=Some(options={**OPTIONS, **options}))
        with pytest.raises(DataError, match=f"a and b are scored with eval.*{told}, which are other numbers"):
            compare_models([[first], [other]], ["a", "b"], draws=5)
    plain = dataclasses.replace(first, settings=Some(options={**OPTIONS, "small_classes": ()}))
    assert compare_models([[first], [plain]], ["a", "b"], draws=5).numbers.keys() >= {"small_classes_iou"}
    with pytest.raises(UsageError, match="got 1 models, expected two or more"):
        compare_models([[first]], ["a"])
    with pytest.raises(UsageError, match="b: its report holds no counts of single images"):
        compare_models([[first], [dataclasses.replace(first, counts=None, model=Some(path="b"))]], ["a", "b"])
