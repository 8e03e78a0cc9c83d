from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import segatlas
from segatlas.cli import doctor
from segatlas.cli.main import app


def test_data_check_exits_0_and_prints_versions_devices_and_extras() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for word in (
        segatlas.__version__,
        platform.python_version(),
        importlib.metadata.version("torch"),
        "cpu",
        "GiB free",
    ):
        assert word in result.stdout
    assert all(f"extra {extra}" in result.stdout for extra in doctor.EXTRAS)


def test_the_json_line_holds_the_findings() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert found["libraries"]["torch"] == importlib.metadata.version("torch")
    assert found["cores"] == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else found["cores"] >= 1
    assert set(found["extras"]) == set(doctor.EXTRAS)
    assert "segatlas" in result.stderr


def test_a_missing_extra_is_shown_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-package"))
    monkeypatch.setattr(doctor, "EXTRAS", {"good": ("torch",), "bad": ("torch", "no-such-package")})
    findings = doctor.examine(tmp_path)
    assert findings.extras == {"good": [], "bad": ["no-such-package"]}
    text = doctor.render(findings)
    assert 'needs no-such-package: pip install "segatlas[bad]"' in text
    assert "no-such-package           MISSING" in text
    assert "extra good       installed" in text


def test_without_torch_data_check_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    assert doctor.devices() == ["none: torch is not installed"]


def test_every_graphics_card_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    card = type("Card", (), {"name": "Big", "total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert doctor.devices()[1:3] == ["cuda:0 Big, 80 GiB", "cuda:1 Big, 80 GiB"]


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert sys.platform != "linux" or (doctor.examine(tmp_path).memory_gib or 0) > 0
    monkeypatch.setattr(os, "sysconf_names", {})
    assert doctor.examine(tmp_path).memory_gib is None
