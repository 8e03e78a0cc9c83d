"""The tables of a comparison of sources: means of seeds, small classes, what it cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.images import save_codes

from multisource_table import class_table, cost_table, prior_itself, read_reports, score_table, several

TIMES = """\tCommand being timed: "x"
\tUser time (seconds): 90.00
\tSystem time (seconds): 30.00
\tMaximum resident set size (kbytes): 1048576
"""


@pytest.fixture
def runs(tmp_path):
    for seed, iou in (("0", 0.5), ("1", 0.7)):
        report = {
            "summary": {"miou": iou},
            "classes": ["road", "pole", "none"],
            "per_class": [{"class": "road", "iou": 0.9}, {"class": "pole", "iou": iou}, {"class": "none", "iou": None}],
            "confusion": [[980, 5, 0], [10, 5, 0], [0, 0, 0]],
            "model": {"parameters": 1_800_000},
        }
        for kind in ("test", "test_absent"):
            file = tmp_path / f"evals/pairs_full-{seed}/{kind}/eval.json"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(report))
        (tmp_path / f"pairs_full-{seed}.log").write_text(TIMES)
    return tmp_path


def test_each_number_of_a_table_comes_from_the_files(runs):
    reports = read_reports(runs, "pairs")
    assert score_table(reports)[-1] == "| full | 60.0 (50.0, 70.0) | 60.0 (50.0, 70.0) |"
    assert class_table(reports)[2:] == [
        "| road | 90.0 (90.0, 90.0) |",
        "| pole (small) | 60.0 (50.0, 70.0) |",
        "| none | – |",
        "| mean of small classes | 60.0 (50.0, 70.0) |",
    ]
    assert cost_table(runs, reports)[-1] == "| full | 1.80 M | 2.0, 2.0 | 1.0, 1.0 |"
    assert not read_reports(runs, "camvid")
    assert several([0.5]) == "50.0"


def test_priors_are_scored_as_if_they_were_predictions(tmp_path):
    truth = np.zeros((4, 4), np.int64)
    truth[2:] = 1
    prior = np.where(np.arange(4) < 1, 0, truth)  # a quarter of class 1 is called 0
    for name in ("a", "b"):
        save_codes(tmp_path / "test/masks" / f"{name}.png", truth)
        save_codes(tmp_path / "test/prior" / f"{name}.png", prior)
    assert prior_itself(tmp_path) == pytest.approx((8 / 10 + 6 / 8) / 2)
