from __future__ import annotations

import sys

import pytest

import fuzz_files


def test_a_few_mutated_files_of_every_format_are_right_or_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz_files.py", "--count", "60", "--seed", "5"])
    assert fuzz_files.main() == 0
    assert "| all | 60 |" in capsys.readouterr().out


def test_an_array_that_differs_without_an_error_is_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(fuzz_files, "read_mask", lambda path: fuzz_files.np.zeros((1, 1), "uint8"))
    monkeypatch.setattr(sys, "argv", ["fuzz_files.py", "--count", "30", "--seed", "5"])
    assert fuzz_files.main() == 1
    assert "reader: silent" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 7])
def test_a_case_can_be_run_again_by_its_number(monkeypatch, capsys, number):
    monkeypatch.setattr(sys, "argv", ["fuzz_files.py", "--seed", "5", "--only", str(number)])
    assert fuzz_files.main() == 0
    assert "| all | 1 |" in capsys.readouterr().out
