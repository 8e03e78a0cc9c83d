"""The end of a run: evaluate the best weights, draw the plots, write the report."""

from __future__ import annotations

import json
from typing import Any

from segatlas import drawing
from segatlas.config import to_yaml
from segatlas.config.schema import Config
from segatlas.data.dataset import SegmentationData
from segatlas.evaluation import Report, evaluate
from segatlas.training.logbook import LOGGER
from segatlas.training.run import RunFolder

WORST = 4


def finish_run(config: Config, folder: RunFolder, val: SegmentationData) -> Report | None:
    """Write eval.json, plots/ and report.html for the best weights of a run.

    Returns None when no validation took place, so that there is no best.
    """
    if not (folder.model / "card.json").exists():
        LOGGER.warning("no validation took place: no best weights, no evaluation")
        return None
    from segatlas.inference import load

    device = config.train.device
    predictor = load(folder.model, device=device)
    settings = config.eval
    report = evaluate(
        predictor,
        data=config.data,
        split=settings.split,
        seed=config.seed,
        tta=settings.tta,
        boundary=settings.boundary,
        boundary_width=settings.boundary_width,
        sizes=settings.sizes,
        progress=False,
    )
    report.to_json(folder.evaluation)
    curves = drawing.curves_picture(folder.metrics)
    confusion = drawing.confusion_picture(report.confusion, report.classes)
    for name, picture in (("curves", curves), ("confusion", confusion)):
        (folder.plots / f"{name}.png").write_bytes(picture)
    drawing.write_report(_content(config, folder, report, curves, confusion, _worst_sheet(predictor, val, report)), folder.report)
    LOGGER.info("best mIoU on %s: %.2f %%", settings.split, 100 * report.miou)
    LOGGER.info("report: %s", folder.report)
    return report


def _worst_sheet(predictor: Any, val: SegmentationData, report: Report) -> bytes | None:
    """Draw the pictures with the lowest mIoU, worst first."""
    rows = []
    by_key = {val.key(index): index for index in range(len(val))}
    for picture in report.worst[:WORST]:
        if picture.key in by_key:
            sample = val.load(by_key[picture.key])
            prediction = predictor.predict(sample.image)
            rows.append(drawing.sample_row(sample.image, sample.label, prediction.semantic, val.palette))
    if not rows:
        return None
    return drawing.png_bytes(drawing.sheet(rows, titles=("image", "truth", "prediction", "error")))


def _content(
    config: Config, folder: RunFolder, report: Report, curves: bytes, confusion: bytes, worst: bytes | None
) -> drawing.ReportContent:
    sheets = [("Worst validation pictures", worst)] if worst else []
    newest = sorted(folder.samples.glob("*.png"))[-1:]
    sheets = [(f"Samples at {path.stem.replace('_', ' ')}", path.read_bytes()) for path in newest] + sheets
    return drawing.ReportContent(
        title=folder.root.name,
        headline=report.headline(),
        curves=curves,
        confusion=confusion,
        per_class=report.per_class,
        sheets=sheets,
        config_yaml=to_yaml(config),
        environment=json.loads(folder.environment.read_text()),
        definitions=report.definitions,
    )
