"""metrics.csv over several starts of a run, and several versions."""

from __future__ import annotations

import csv

import pytest

from segatlas.printable import on_terminal
from segatlas.training.logbook import LOGGER, Logbook, close_log, hold_log, open_log
from segatlas.training.run import RunFolder


def rows(folder):
    return list(csv.DictReader(folder.metrics.open(newline="")))


def test_a_run_of_a_version_that_watched_fewer_scores_keeps_its_rows_and_its_columns(tmp_path):
    folder = RunFolder(root=tmp_path)
    earlier = Logbook(folder, scores=["ap"])
    for step in (1, 2, 3):
        earlier.add(step, 0, {"loss": float(step), "val_ap": step / 10}, {"mask": 0.5})
    later = Logbook(folder, scores=["ap", "best_f1"], resumed=True)
    later.rewind(2)
    later.add(3, 0, {"loss": 9.0, "val_ap": 0.7, "val_best_f1": 0.8}, {"mask": 0.25})
    assert [(row["step"], row["loss"], row["val_ap"], row["terms"]) for row in rows(folder)] == [
        ("1", "1", "0.1", "mask=0.5"),
        ("2", "2", "0.2", "mask=0.5"),
        ("3", "9", "0.7", "mask=0.25"),
    ]


def test_a_file_cut_within_its_first_line_begins_anew(tmp_path):
    folder = RunFolder(root=tmp_path)
    Logbook(folder, scores=["ap"])
    folder.metrics.write_text("step,epo")
    later = Logbook(folder, scores=["ap"], resumed=True)
    later.rewind(0)
    later.add(1, 0, {"loss": 1.0})
    assert [(row["step"], row["loss"]) for row in rows(folder)] == [("1", "1")]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_quiet_run_tells_warnings_alone_and_its_file_has_all(tmp_path, capsys, monkeypatch, quiet):
    monkeypatch.setattr(LOGGER, "handlers", [])
    held = hold_log()
    LOGGER.info("before the run has a folder")
    LOGGER.warning("so early")
    handlers = open_log(tmp_path / "log.txt", held, quiet=quiet)
    LOGGER.info("step 1")
    LOGGER.warning("careful")
    close_log(handlers)
    told = capsys.readouterr().err
    assert ("warning: so early" in told, "warning: careful" in told) == (True, True)
    assert ("step 1" in told, "before the run" in told) == (not quiet, not quiet)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4


def test_a_line_that_is_short_on_a_terminal_or_missing_there_is_whole_in_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [])
    handlers = open_log(tmp_path / "log.txt", hold_log(), quiet=False)
    LOGGER.info("held out: a, b, c, d", extra=on_terminal("held out: a\x1b and 3 more"))
    LOGGER.info("288 tensors", extra=on_terminal(""))
    close_log(handlers)
    assert capsys.readouterr().err.splitlines() == ["held out: a\\x1b and 3 more"]
    written = (tmp_path / "log.txt").read_text()
    assert "held out: a, b, c, d\n" in written
    assert "288 tensors\n" in written
