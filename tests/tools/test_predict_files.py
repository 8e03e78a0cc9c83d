"""The figures of predicting many files, from turns made by hand, and a pass over a few files in this process."""

import io
import json
import sys

import pytest

import predict_files
from predict_files import child, summary, write_images, write_model


def turns(*seconds: float, peak: float) -> list[dict[str, float]]:
    found = [{"wall_s": 2 * one, "processor_s": one} for one in seconds]
    found[-1]["peak_mib"] = peak
    return found


def test_ratios_are_medians_of_turns_beside_each_other_and_rates_those_of_rounds():
    rounds = [
        {"this": turns(1, 9, peak=200), "other": turns(2, 10, peak=100)},
        {"this": turns(30, 30, peak=200), "other": turns(30, 60, peak=200)},
        {"this": turns(1, 1, peak=250), "other": turns(1, 1, peak=200)},
    ]
    found = summary(rounds, files=20)
    assert found["this"] == {"images_per_second": 1.0, "images_per_processor_second": 2.0, "peak_mib": 200}
    assert found["other"]["images_per_processor_second"] == pytest.approx(20 / 12, abs=0.05)
    assert found["ratio"] == {"wall_s": 0.95, "processor_s": 0.95, "peak_mib": 1.25}
    assert "ratio" not in summary([{"this": turns(1, peak=1)}], files=20)


def test_a_process_predicts_its_files_turn_by_turn_and_tells_its_peak_at_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict_files, "TURN", 2)
    write_images(tmp_path / "images", 3)
    write_model(str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO("go on\n" * 2))
    child(str(tmp_path), "2")
    ready, first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready == {}
    assert first.keys() == {"wall_s", "processor_s"}
    assert last["peak_mib"] > 50
