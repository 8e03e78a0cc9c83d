"""A metric costs one file and one line: written and named by a test, it is everywhere a number can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from segatlas import metrics
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.drawing import ReportContent, write_report
from segatlas.evaluation import evaluate, tables
from segatlas.recipe import Config
from segatlas.tasks import TASKS

FILE = """
from segatlas.metrics import Metric, Number, Rows, Sums

class Corner(Sums):
    def __init__(self, classes):
        super().__init__(right=(len(classes),), all=(1,))

    def update(self, result, target):
        label = int(target.labels[0, 0])
        self.counts["right"][label] += result.semantic[0, 0] == label
        self.counts["all"] += 1
        return float("nan")

    def compute(self):
        fraction = (self.counts["right"] / self.counts["all"]).tolist()
        return Rows(per_class={"corner": fraction}, whole={"mean_corner": sum(fraction)})

METRIC = Metric(name="toy_corner", title="corners", accumulator=Corner, numbers=(
    Number(name="corner", heading="Corn.", last_line="mean_corner", definition="Images with a right corner."),
    Number(name="mean_corner", title="right corners", monitored=True, definition="All with a right corner."),
))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_corner.py").write_text(FILE)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    task = TASKS["semantic"]
    monkeypatch.setitem(TASKS, "semantic", replace(task, metrics=(*task.metrics, "toy_corner")))


@pytest.mark.usefixtures("toy")
def test_a_new_metric_is_printed_stored_explained_drawn_and_monitored(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind, pixels in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.eye(8, dtype=np.uint8))):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "data" / split / kind / "a.png")
    net = create_model("unet", num_classes=2, width=4)
    save_pretrained(net, tmp_path / "model", classes=("ground", "line"))
    report = evaluate(tmp_path / "model", tmp_path / "data", device="cpu", progress=False)

    console = Console(width=200, color_system=None)
    with console.capture() as printed:
        console.print(tables.full_report(report), tables.definitions_table([report]))
    for text in ("Corn.", "right corners", "All with a right corner."):
        assert text in printed.get()
    stored = report.to_dict()
    assert {"mean_corner", "miou"} <= set(stored["summary"])
    assert "corner" in stored["per_class"][0]
    assert stored["definitions"]["corner"] == "Images with a right corner."
    page = write_report(ReportContent(title="toy", sections=report.sections), tmp_path / "report.html").read_text()
    assert "Corn." in page
    assert "right corners" in page
    assert "mean_corner" in metrics.monitored(TASKS["semantic"].metrics)
    assert "toy_corner" in metrics.monitoring(TASKS["semantic"].metrics)
    assert Config.load("unet_shapes", "train.metric=mean_corner").train.metric == "mean_corner"
