import json

import pytest
from typer.testing import CliRunner

from segatlas.bench import measuring
from segatlas.cli.main import app

QUICK = ("--size", "16x24", "--repeats", "1", "--threads", "1", "--num-classes", "3")


def segatlas(*words):
    return CliRunner().invoke(app, ["bench", *map(str, words)])


@pytest.fixture(autouse=True)
def _no_child_processes(monkeypatch):
    monkeypatch.setattr(measuring, "measure_memory", lambda *words: 2.5)


def test_tables_show_each_model_and_the_load(tmp_path):
    result = segatlas("unet:width=4", "unet:width=2,decoder_channels=[8,8]", *QUICK, "--precision", "fp32,bf16")
    assert result.exit_code == 0, result.output
    for words in (
        "forward: network input to output",
        "predict: uint8 image",
        "GMACs",
        "1 MAC",
        "load per core",
        "bf16",
    ):
        assert words in result.output
    assert "[8,8]" in "".join(result.output.split())


def test_out_holds_machine_settings_load_unit_models_and_rows(tmp_path):
    out = tmp_path / "new" / "bench.json"
    result = segatlas("unet:width=4", *QUICK, "--batch", "2", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(out.read_text())
    assert json.loads(result.stdout) == facts
    assert [path.name for path in out.parent.iterdir()] == ["bench.json"]
    assert set(facts) == {"machine", "settings", "load", "unit", "models", "rows"}
    assert {"processor", "cores", "threads", "torch", "date", "seed", "command"} <= set(facts["machine"])
    assert facts["settings"]["size"] == [16, 24]
    assert facts["settings"]["batch"] == 2
    assert "1 MAC" in facts["unit"]
    assert facts["models"][0]["flops"] == 2 * facts["models"][0]["macs"] > 0
    assert [row["piece"] for row in facts["rows"]] == ["forward", "predict"]
    row = facts["rows"][0]
    assert set(row["timing"]["wall_ms"]) == {"median", "p95", "minimum"}
    assert (row["ratio_wall"], row["ratio_cpu"], row["peak_memory_mib"]) == (1, 1, 2.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["unett"], "did you mean 'unet'"),
        (["unet", "--size", "512"], "expected HxW"),
        (["unet", "--precision", "fp16"], "expected fp32, bf16"),
        (["unet", "--out", "."], "is a folder"),
        (["unet", "--out", "a_file/b.json"], "cannot write to the folder a_file"),
        (["unet:width"], "expected FIELD=VALUE"),
        (["unet:width=4", "unett"], "did you mean 'unet'"),
        (["unet:width=4", "unet:widht=4"], "widht"),
    ],
)
def test_wrong_words_end_with_code_2_before_anything_is_measured(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("")
    for name in ("measure_memory", "time_alternating"):
        monkeypatch.setattr(measuring, name, lambda *_: pytest.fail("something was measured"))
    result = segatlas(*words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_realtime_protocol_prints_frames_a_second_and_draws_published_accuracy(tmp_path):
    words = ("--protocol", "realtime", "--size", "32x64", "--seconds", "0.02", "--threads", "1", "--json")
    chart, out = tmp_path / "speed.png", tmp_path / "speed.json"
    result = segatlas("sanet_s", "unet:width=4", *words, "--chart", chart, "--out", out)
    assert result.exit_code == 0, result.output
    facts = json.loads(out.read_text())
    assert json.loads(result.stdout) == facts
    assert facts["models"][0]["miou"] == 78.6
    assert {row["way"] for row in facts["rows"]} == set(facts["ways"])
    assert chart.read_bytes().startswith(b"\x89PNG")
    for words in ("published mIoU", "arXiv 2309.10519", "end to end", "cpu gain", "batch norm folded"):
        assert words in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["unet", "--protocol", "real"], "expected realtime"),
        (["unet", "--chart", "x.png"], "only with --protocol realtime"),
        (["unet", "--protocol", "realtime", "--batch", "2"], "the protocol is for one image"),
        (
            ["unet:width=4", "--protocol", "realtime", "--seconds", "0.02", "--size", "16x16", "--chart", "x.png"],
            "no mIoU",
        ),
    ],
)
def test_wrong_words_of_the_protocol_are_told(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = segatlas(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
