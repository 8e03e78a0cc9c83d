from dataclasses import asdict

import pytest
import torch

from segatlas.bench import BenchSettings, measure, measuring
from segatlas.bench.measuring import make_rows
from segatlas.bench.subjects import count_flops, load_subject
from segatlas.bench.timing import Spread, Timing
from segatlas.errors import UsageError


def timing(wall, cpu):
    return Timing(
        wall_ms=Spread(median=wall, p95=wall + 1, minimum=wall - 1), cpu_ms=Spread(median=cpu, p95=cpu, minimum=cpu)
    )


def test_ratios_are_medians_against_the_first_row_of_the_same_piece():
    keys = [(model, "fp32", piece) for model in "ab" for piece in ("forward", "predict")]
    rows = make_rows(keys, [timing(10, 20), timing(30, 40), timing(5, 30), timing(60, 10)], [1.0, 2.0, None, 4.0])
    assert [row.ratio_wall for row in rows] == pytest.approx([1, 1, 0.5, 2])
    assert [row.ratio_cpu for row in rows] == pytest.approx([1, 1, 1.5, 0.25])
    assert [row.peak_memory_mib for row in rows] == [1.0, 2.0, None, 4.0]
    assert [(row.model, row.piece) for row in rows] == [(key[0], key[2]) for key in keys]


def test_every_model_is_measured_in_every_precision_and_piece(monkeypatch):
    asked = []
    monkeypatch.setattr(measuring, "measure_memory", lambda *words: asked.append(words[:3]) or 1.5)
    settings = BenchSettings(size=(16, 24), precisions=("fp32", "bf16"), repeats=1, warmups=0, num_classes=3, threads=1)
    threads, told = torch.get_num_threads(), []
    report = measure(["unet:width=4", "unet:width=2"], settings, progress=told.append)

    keys = [(row.model, row.precision, row.piece) for row in report.rows]
    assert len(set(keys)) == 2 * 2 * 2
    assert asked == keys
    assert all(row.timing.wall_ms.minimum > 0 for row in report.rows)
    assert report.machine.threads == 1
    assert torch.get_num_threads() == threads
    assert any("memory: unet:width=2, bf16, predict" in line for line in told)

    first = report.models[0]
    assert first.input == (3, 16, 24)
    assert (
        first.flops
        == 2 * first.macs
        == count_flops(load_subject("unet:width=4", settings).net, torch.empty((1, 3, 16, 24)))
    )
    assert asdict(report)["load"]["message"] == report.load.message


def test_no_model_is_a_usage_error():
    with pytest.raises(UsageError, match="which models"):
        measure([], BenchSettings())
