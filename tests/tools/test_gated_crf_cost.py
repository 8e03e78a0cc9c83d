"""tools/gated_crf_cost.py."""

from __future__ import annotations

import re
import sys

import gated_crf_cost


def test_it_prints_both_steps(monkeypatch, capsys):
    monkeypatch.setattr(gated_crf_cost, "SIDE", 64)
    monkeypatch.setattr(sys, "argv", ["gated_crf_cost.py", "--turns", "1", "--batch", "1"])
    gated_crf_cost.main()
    assert re.fullmatch(r"cross-entropy \d+ ms, with the gated CRF \d+ ms: -?[\d.]+ % more\n", capsys.readouterr().out)
