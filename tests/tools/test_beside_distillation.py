"""The comparison with published terms of distillation: the other side runs as it is, and a difference is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import beside_distillation

CHANNEL = """
import torch
from mmrazor.registry import MODELS


@MODELS.register_module()
class ChannelWiseDivergence(torch.nn.Module):
    def __init__(self, tau):
        super().__init__()
        self.tau = tau

    def forward(self, student, teacher):
        total = 0.0
        for s, t in zip(student.flatten(0, 1), teacher.flatten(0, 1)):
            p, q = ((x.flatten() / self.tau).softmax(0) for x in (t, s))
            total = total + (p * (p / q).log()).sum()
        return FACTOR * self.tau**2 * total / (student.shape[0] * student.shape[1])
"""
PIXEL = """
import torch


class KLDivergence(torch.nn.Module):
    def __init__(self, tau, reduction):
        super().__init__()
        self.tau = tau

    def forward(self, student, teacher):
        p, q = ((x / self.tau).softmax(1) for x in (teacher, student))
        return self.tau**2 * (p * (p / q).log()).sum()
"""


@pytest.mark.parametrize(("factor", "status"), [("1", 0), ("1.0001", 1)])
def test_the_exit_status_says_whether_all_terms_are_equal(tmp_path: Path, monkeypatch, capsys, factor, status):
    folder = tmp_path / "mmrazor" / "models" / "losses"
    folder.mkdir(parents=True)
    (folder / "cwd.py").write_text(CHANNEL.replace("FACTOR", factor))
    (folder / "kl_divergence.py").write_text(PIXEL)
    monkeypatch.setattr(sys, "argv", ["beside_distillation.py", "--mmrazor", str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))  # stand-ins last as long as the test
    assert beside_distillation.main() == status
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["channel_wise", "pixel_wise x 1536 pixels"]
