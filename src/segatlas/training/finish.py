"""The end of a run: evaluate the best weights, draw the plots, write the report."""

from __future__ import annotations

import json

from segatlas import drawing
from segatlas.config import to_yaml
from segatlas.data.dataset import SegmentationData
from segatlas.evaluation import Report, evaluate
from segatlas.inference import Predictor, load
from segatlas.inference.images import with_sources
from segatlas.recipe import Config
from segatlas.training.environment import recorded_environment
from segatlas.training.logbook import LOGGER
from segatlas.training.run import RunFolder

WORST = 4
SCORES_SHOWN = ("iou", "precision", "recall", "boundary_iou")


def finish_run(config: Config, folder: RunFolder, val: SegmentationData) -> Report | None:
    """Write eval.json, plots/ and report.html for the best weights of a run.

    Returns None when no validation took place, so that there is no best.
    """
    if not (folder.model / "card.json").exists():
        LOGGER.warning("no validation took place: no best weights, no evaluation")
        return None
    predictor = load(folder.model, device=config.train.device)
    report = evaluate(folder.root, config, device=config.train.device, progress=False)
    report.to_json(folder.evaluation)
    curves = drawing.curves_image(folder.metrics)
    confusion = drawing.confusion_image(report.confusion, report.scores.classes)
    for name, image in (("curves", curves), ("confusion", confusion)):
        drawing.write_bytes(image, folder.plots / f"{name}.png")
    worst = _worst_sheet(predictor, val, report) if report.data.split == val.split else None
    drawing.write_report(_content(config, folder, report, curves, confusion, worst), folder.report)
    LOGGER.info("best mIoU on %s: %.2f %%", report.data.split, 100 * report.miou)
    return report


def _worst_sheet(predictor: Predictor, val: SegmentationData, report: Report) -> bytes | None:
    """Draw the images with the lowest mIoU, worst first."""
    by_key = {val.key(index): index for index in range(len(val))}
    rows, titles = [], []
    for image in report.worst[:WORST]:
        sample = val.load(by_key[image.key])
        assert sample.label is not None
        prediction = predictor.predict(with_sources(sample, predictor.card))
        rows.append(drawing.sample_row(sample.image, sample.label, prediction.semantic, val.palette))
        titles.append(f"{image.key}: mIoU {100 * image.miou:.1f} %")
    if not rows:
        return None
    return drawing.png_bytes(drawing.sheet(rows, drawing.SAMPLE_TITLES, titles))


def _content(
    config: Config, folder: RunFolder, report: Report, curves: bytes, confusion: bytes, worst: bytes | None
) -> drawing.ReportContent:
    colors = load_palette(folder)
    rows = [
        drawing.ClassRow(
            name=row["class"],
            color=color,
            scores={name: row[name] for name in SCORES_SHOWN if name in row},
            note=f"{row['support']:,} pixels",
        )
        for row, color in zip(report.per_class, colors, strict=True)
    ]
    newest = sorted(folder.samples.glob("*.png"))[-1:]
    return drawing.ReportContent(
        title=folder.root.name,
        subtitle=f"{config.model.name} on {config.data.name}, {report.data.images} images of {report.data.split}",
        headline=[
            ("mIoU", f"{100 * report.miou:.2f} %"),
            ("pixel accuracy", f"{100 * report.scores.pixel_accuracy:.2f} %"),
            ("parameters", f"{report.model.parameters / 1e6:.2f} M"),
        ],
        curves=curves,
        confusion=confusion,
        per_class=rows,
        sheets=[(f"Validation at {path.stem.replace('_', ' ')}", path.read_bytes()) for path in newest],
        worst=[("Images with the lowest mIoU", worst)] if worst else [],
        config_yaml=to_yaml(config),
        environment=recorded_environment(folder.environment),
        definitions=report.definitions,
        commands=[f"segatlas eval {folder.root} --split {report.data.split}"],
    )


def load_palette(folder: RunFolder) -> list[tuple[int, int, int]]:
    """Return the class colours of the run's model."""
    card = json.loads((folder.model / "card.json").read_text(encoding="utf-8"))
    return [(r, g, b) for r, g, b in card["palette"]]
