"""The tables of a comparison of several seeds: what stands in its file, spread first."""

from __future__ import annotations

import pytest

from comparison_table import difference_table, spread_table, time_table

TIMES = """\tCommand being timed: "x"
\tUser time (seconds): 90.00
\tSystem time (seconds): 30.00
\tMaximum resident set size (kbytes): 1048576
"""


def model(first: float, second: float) -> dict:
    return {
        "runs": [{"values": {"miou": first, "iou.pole": 0.1}}, {"values": {"miou": second, "iou.pole": None}}],
        "mean": {"miou": (first + second) / 2, "iou.pole": None},
        "spread": {"miou": abs(first - second), "iou.pole": None},
    }


@pytest.fixture
def facts():
    one = {"difference": 0.02, "low": -0.01, "high": 0.05, "better": 0.9}
    unknown = {"difference": None, "low": None, "high": None, "better": None}
    return {
        "models": [model(0.3, 0.4), model(0.35, 0.39)],
        "differences": [
            {
                "means": {"miou": {**one, "within_spread": True}, "iou.pole": {**unknown, "within_spread": False}},
                "pairs": [{"miou": {**one, "difference": 0.05}}, {"miou": {**one, "difference": -0.01}}],
            }
        ],
    }


def test_spread_stands_behind_the_runs_of_each_model(facts):
    assert spread_table(facts, ("plain", "other"), ["miou"]) == [
        "| % | plain, 1 | plain, 2 | spread | other, 1 | other, 2 | spread |",
        "|---|---|---|---|---|---|---|",
        "| miou | 30.0 | 40.0 | 10.0 | 35.0 | 39.0 | 4.0 |",
    ]


def test_a_difference_within_the_spread_has_a_star_and_an_undefined_one_a_dash(facts):
    assert difference_table(facts, ("plain", "other"), ["miou", "iou.pole"])[2:] == [
        "| miou | 35.0 | 37.0 | +2.00 * | -1.00 to +5.00 | +5.00 | -1.00 |",
        "| pole | – | – | – | – | – | – |",
    ]


def test_times_of_all_starts_of_a_run_are_added(tmp_path):
    log = tmp_path / "plain_s0.log"
    log.write_text(TIMES * 2)
    assert time_table([log])[-1] == "| plain_s0 | 4.0 | 1.0 |"
