"""The end of a run: evaluate the best weights, draw the plots, write the report."""

from __future__ import annotations

import json

from segatlas import drawing
from segatlas.config import to_yaml
from segatlas.data.dataset import SegmentationData
from segatlas.evaluation import Report, evaluate
from segatlas.evaluation.object_cases import TITLES
from segatlas.inference import Predictor, load
from segatlas.metrics.sections import ClassTable, Figures, Matrix, Ranking, Section
from segatlas.recipe import Config
from segatlas.tasks import TASKS
from segatlas.training.environment import recorded_environment
from segatlas.training.logbook import LOGGER
from segatlas.training.run import RunFolder
from segatlas.training.samples import sheet_row

WORST = 4
MOST_CLASSES = 12
"""Classes whose numbers stand in a line at the end of a run."""
OBJECT_WIDTH = 240
"""Pixels of a column of a sheet of objects."""


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
    curves = drawing.curves_image(folder.metrics, best=config.train.metric)
    drawing.write_bytes(curves, folder.plots / "curves.png")
    sections: list[Section] = [Figures(title="Training curves", entries=[("", curves)])]
    for section in report.sections:
        if isinstance(section, Matrix):
            image = drawing.confusion_image(section.values, section.names)
            drawing.write_bytes(image, folder.plots / f"{section.name}.png")
            sections.append(Figures(title=section.title, entries=[("", image)]))
        elif not isinstance(section, Ranking):
            sections.append(section)
    sections += _sheets(predictor, val, folder, report)
    drawing.write_report(_content(config, folder, report, sections), folder.report)
    watched = report.scores.numbers.get(config.train.metric, report.scores.headline)
    LOGGER.info("best %s on %s: %s", watched.short, report.data.split, watched.text(report.scores.whole[watched.name]))
    if line := class_line(report):
        LOGGER.info("%s", line)
    for warning in report.warnings:
        LOGGER.warning("%s", warning)
    return report


def class_line(report: Report) -> str:
    """Return the first number of each class in one line; "" where there is none, or where the classes are too many."""
    table = next((section for section in report.sections if isinstance(section, ClassTable)), None)
    if table is None or not table.scores or len(table.rows) > MOST_CLASSES:
        return ""
    number = table.scores[0]
    values = ", ".join(f"{row['class']} {number.text(row[number.name])}" for row in table.rows)
    return f"{number.heading} on {report.data.split}: {values}"


def _sheets(predictor: Predictor, val: SegmentationData, folder: RunFolder, report: Report) -> list[Section]:
    """Return the newest validation sheet, and the worst images: drawn where val was scored, else by name."""
    newest = [(f"Validation at {path.stem.replace('_', ' ')}", path) for path in sorted(folder.samples.glob("*.png"))]
    found: list[Section] = [Figures(title="Samples", entries=[(text, path.read_bytes()) for text, path in newest[-1:]])]
    for ranking in report.sections:
        if not isinstance(ranking, Ranking):
            continue
        if report.data.split != val.split:
            found.append(ranking)
        else:
            worst = _worst_sheet(predictor, val, ranking)
            found.append(Figures(title="Worst images", entries=[(_capitalised(ranking.title), worst)]))
    if report.data.split == val.split:
        found += _object_sheets(val, report)
    return found


def _object_sheets(val: SegmentationData, report: Report) -> list[Section]:
    """Draw the objects that say most: found best and worst, missed, made up."""
    by_key = {val.key(index): index for index in range(len(val))}
    entries: list[tuple[str, bytes | None]] = []
    for kind, cases in report.objects.items():
        if not cases:
            entries.append((f"{TITLES[kind]}: none", None))
            continue
        rows = []
        for case in cases:
            masks = [None if mask is None else mask.bitmap() for mask in (case.truth, case.found)]
            rows.append(drawing.object_row(val.load(by_key[case.key]).image, *masks))
        sheet = drawing.sheet(rows, drawing.CROP_TITLES, [case.caption for case in cases], cell_width=OBJECT_WIDTH)
        entries.append((TITLES[kind], drawing.png_bytes(sheet)))
    return [Figures(title="Objects", entries=entries)] if entries else []


def _worst_sheet(predictor: Predictor, val: SegmentationData, ranking: Ranking) -> bytes:
    """Draw the worst images, the worst first."""
    by_key = {val.key(index): index for index in range(len(val))}
    rows, titles = [], []
    for value, key in ranking.entries[:WORST]:
        rows.append(sheet_row(TASKS[predictor.card.task], predictor, val, by_key[key]))
        titles.append(f"{key}: {ranking.number.short} {ranking.number.text(value, 1)}")
    return drawing.png_bytes(drawing.sheet(rows, drawing.SAMPLE_TITLES, titles))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _content(config: Config, folder: RunFolder, report: Report, sections: list[Section]) -> drawing.ReportContent:
    shown = report.scores.monitored[:2]
    return drawing.ReportContent(
        title=folder.root.name,
        subtitle=f"{config.model.name} on {config.data.name}, {report.data.images} images of {report.data.split}",
        headline=[
            *((number.short, number.text(report.scores.whole[number.name])) for number in shown),
            ("parameters", f"{report.model.parameters / 1e6:.2f} M"),
        ],
        warnings=report.warnings,
        sections=sections,
        colors=load_palette(folder),
        config_yaml=to_yaml(config),
        environment=recorded_environment(folder.environment),
        definitions=report.definitions,
        commands=[f"segatlas eval {folder.root} --split {report.data.split}"],
    )


def load_palette(folder: RunFolder) -> list[tuple[int, int, int]]:
    """Return the class colours of the run's model."""
    card = json.loads((folder.model / "card.json").read_text(encoding="utf-8"))
    return [(r, g, b) for r, g, b in card["palette"]]
