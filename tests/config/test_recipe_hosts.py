"""`model.host:` in a recipe: both spellings, layers, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from segatlas.errors import ConfigError, Problem
from segatlas.recipe import Config

HOST = "model:\n  name: temperature\n  host:\n    name: fcn\n    encoder: resnet18\n"


def problems_of(path: Path, text: str, *words: str) -> list[Problem]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(path, *words)
    return caught.value.problems


def told(path: Path, text: str, *words: str) -> list[tuple[str, int | None]]:
    return [(problem.key, problem.line) for problem in problems_of(path, text, *words)]


def test_all_faults_of_a_host_are_told_with_their_lines_and_all_else(tmp_path: Path):
    text = HOST + "    encoder_options:\n      multi_gird: [1, 2, 4]\n    chanels: 8\ntrain:\n  batch: 0\n"
    found = problems_of(tmp_path / "a.yaml", text)
    assert [(problem.key, problem.line) for problem in found] == [
        ("model.host.encoder.multi_gird", 7),
        ("model.host.chanels", 8),
        ("train.batch", 10),
    ]
    assert "did you mean 'multi_grid'" in found[0].message
    assert "did you mean 'channels'" in found[1].message


@pytest.mark.parametrize(
    ("text", "key", "line", "message"),
    [
        ("model:\n  name: temperature\n", "model.host", 1, "needs a network to wrap"),
        ("model:\n  name: temperature\n  host:\n    name: fcm\n", "model.host.name", 4, "did you mean 'fcn'"),
        ("model:\n  name: temperature\n  host: center\n", "model.host.name", 3, "wraps networks that give"),
        ("model:\n  name: temperature\n  host: temperature\n", "model.host.name", 3, "cannot wrap itself"),
        ("model:\n  name: temperature\n  host:\n    channels: 8\n", "model.host.name", 3, "expected a network's name"),
        ("model:\n  name: unet\n  host: fcn\n", "model.host", 3, "wraps no other network"),
        (HOST + "    start_from: here\n", "model.host.start_from", 6, "set it beside `host`"),
        (HOST + "train:\n  freeze_host: true\n", "train.freeze_host", 7, "set model.start_from"),
        ("train:\n  freeze_host: true\n", "train.freeze_host", 2, "unet wraps no other network"),
    ],
)
def test_a_host_that_cannot_be_is_told_with_its_line(tmp_path: Path, text: str, key: str, line: int, message: str):
    found = problems_of(tmp_path / "a.yaml", text)
    assert [(problem.key, problem.line) for problem in found] == [(key, line)]
    assert message in found[0].message


def test_a_source_that_the_host_needs_is_told(tmp_path: Path):
    text = "model:\n  name: temperature\n  host: fc_siam\ndata:\n  name: folder\n"
    assert told(tmp_path / "a.yaml", text) == [("data.name", 5)]


def test_a_word_reaches_a_field_of_the_host_in_either_spelling(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(HOST + "    output_stride: 8\n")
    cfg = Config.load(tmp_path / "a.yaml", "model.host.output_stride=16", "model.host.channels=32")
    host = cfg.model.architecture_fields()["host"]
    assert host == {"name": "fcn", "encoder": {"name": "resnet18", "output_stride": 16}, "channels": 32}
    (tmp_path / "b.yaml").write_text("model:\n  name: temperature\n  host: fcn\n")
    cfg = Config.load(tmp_path / "b.yaml", "model.host.channels=32")
    assert cfg.model.architecture_fields()["host"] == {"name": "fcn", "channels": 32}


def test_flat_and_nested_that_contradict_each_other_inside_a_host_are_told(tmp_path: Path):
    text = HOST.replace("encoder: resnet18", "encoder: {name: resnet18, output_stride: 8}") + "    output_stride: 16\n"
    assert told(tmp_path / "a.yaml", text) == [("model.host.output_stride", 6)]


def test_another_host_leaves_the_fields_of_the_first_one_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.yaml").write_text(HOST)
    cfg = Config.load(tmp_path / "a.yaml", "model.host.name=unet")
    assert cfg.model.architecture_fields()["host"] == {"name": "unet"}
    assert "model.host.name is unet: left out what was written for fcn: encoder" in caplog.text
