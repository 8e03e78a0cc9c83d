"""What is said at the end of a run of how well each class is found."""

from __future__ import annotations

from types import SimpleNamespace as Some

import numpy as np
from fakes.results import semantic_metrics, semantic_pair

from segatlas.training import train
from segatlas.training.finish import MOST_CLASSES, class_line


def report_of(classes):
    metrics = semantic_metrics(classes, boundary=False)
    metrics.update(*semantic_pair(np.array([[0, 0, 0, 0]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8)))
    return Some(sections=metrics.compute().sections, data=Some(split="val"))


def test_the_iou_of_each_class_stands_in_one_line_unless_there_are_many():
    assert class_line(report_of(("ground", "house", "tree"))) == "IoU on val: ground 75.00 %, house 0.00 %, tree \u2013"
    assert class_line(report_of([f"class {index}" for index in range(MOST_CLASSES)])) != ""
    assert class_line(report_of([f"class {index}" for index in range(MOST_CLASSES + 1)])) == ""


def test_a_run_tells_the_iou_of_each_class_and_warns_of_one_that_was_never_predicted(recipe, monkeypatch, capsys):
    monkeypatch.setattr("segatlas.metrics.scores.Scores.never_predicted", ("disc",))
    run = train(recipe("train.steps=1", "train.epochs=null", "log.samples=0")).dir
    told = capsys.readouterr().err
    for text in (told, (run / "log.txt").read_text()):
        assert "IoU on val: ground " in text
        assert "never predicted, though the truth has it: disc" in text
    assert "never predicted, though the truth has it: disc" in (run / "report.html").read_text()
