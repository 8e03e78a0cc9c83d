"""Where the report of an evaluation is kept, so that none takes the place of another.

`eval.json` of a run folder is what its training wrote at the end, and stays. Any later evaluation of the run is a file
of `evaluations/`, called after what was asked: the split, a checkpoint other than the best, a dataset other than the
run's, test-time augmentation, windows, precision, sources left out or shuffled. The same question asked again replaces
its own file; another question of the same name takes the next number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

from segatlas.checkpoint.card import CARD_FILE
from segatlas.errors import UsageError
from segatlas.evaluation.report import REPORT_FILE
from segatlas.evaluation.run import Evaluation
from segatlas.evaluation.sources import CONFIG_FILE, find_run

FOLDER = "evaluations"
PARTS_OF_A_RUN = ("model", "checkpoints", "plots", "samples", FOLDER)
"""Folders that training and evaluation write in a run folder."""
LONGEST_NAME = 100


def run_of(model: str) -> Path | None:
    """Return the run folder that a model lies in, as it was named where it is the run itself; else None."""
    return Path(model) if (Path(model) / CONFIG_FILE).is_file() else find_run(model)


def place_in_run(run: Path, evaluation: Evaluation) -> Path:
    """Return the file of `evaluations/` for an evaluation: its own of before, else one that does not exist yet."""
    name = report_name(run, evaluation)
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    files = (run / FOLDER / f"{name}.json" for name in names)
    return next(file for file in files if not file.exists() or _question(file) == evaluation.question)


def place_in_folder(folder: Path, evaluation: Evaluation) -> Path:
    """Return `eval.json` of a folder of the user's choice.

    Raises:
        UsageError: it is a run folder, whose own report it is, lies in a part of one, or holds the report of another
            evaluation.
    """
    file = folder / REPORT_FILE
    run = _run_around(folder)
    if run is not None:
        raise UsageError(
            f"--out {folder} is a part of the run folder {run}, which only training and evaluation without --out "
            f"write; choose another, or leave --out away: evaluations of a run are kept in its {FOLDER}/"
        )
    if (folder / CONFIG_FILE).is_file():
        raise UsageError(
            f"--out {folder} is a run folder, whose {REPORT_FILE} belongs to its training; choose another, or leave "
            f"--out away: evaluations of a run are kept in its {FOLDER}/"
        )
    if file.is_dir() or (file.exists() and _question(file) != evaluation.question):
        raise UsageError(f"{file} is there and holds another evaluation{_told(file)}; choose another --out")
    return file


def _run_around(folder: Path) -> Path | None:
    """Return the run folder of which a folder is, or lies in, one of `PARTS_OF_A_RUN`."""
    path = folder.resolve()
    for part in (path, *path.parents):
        run = part.parent
        if part.name in PARTS_OF_A_RUN and (run / CONFIG_FILE).is_file() and _holds_weights(run):
            return run
    return None


def _holds_weights(folder: Path) -> bool:
    return (folder / "model" / CARD_FILE).is_file() or (folder / "checkpoints").is_dir()


def report_name(run: Path, evaluation: Evaluation) -> str:
    """Return what a report of a run is called, without ending: "val", "test-flips-window512x512"."""
    settings = evaluation.settings
    parts = [evaluation.dataset.split]
    if (evaluation.path or "").endswith(".ckpt"):
        parts.append(Path(evaluation.path or "").stem)
    if evaluation.other_data:
        parts += ["on", Path(evaluation.plan.data.root or evaluation.dataset.name).resolve().name]
    parts += settings.tta
    if evaluation.window is not None and settings.window is not None:
        parts.append("window{}x{}".format(*settings.window))
    if settings.precision != "fp32":
        parts.append(settings.precision)
    if settings.batch_stats:
        parts += ["batch", "stats"] if settings.batch == 1 else ["batch", "stats", f"of{settings.batch}"]
    parts += [f"{name}-{text}" for name, text in settings.sources.items()]
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-.")[:LONGEST_NAME]


def check_different(files: Sequence[Path | None]) -> None:
    """Raise UsageError where two models would be written to one file."""
    known = [file for file in files if file is not None]
    for number, file in enumerate(known):
        if file.resolve() in [other.resolve() for other in known[:number]]:
            raise UsageError(f"two of the models would be written to {file}; evaluate them one by one")


def _question(file: Path) -> str | None:
    """Return what a report answers; None where the file is no report of this version."""
    stored = _stored(file)
    question = stored.get("question")
    return question if isinstance(question, str) else None


def _told(file: Path) -> str:
    """Return in brackets what a report is about, as far as it can be read."""
    data, model = (_stored(file).get(name) for name in ("data", "model"))
    if not isinstance(data, dict) or not isinstance(model, dict):
        return ""
    return f" ({model.get('path')} on {data.get('split')} of {data.get('root')})"


def _stored(file: Path) -> dict[str, object]:
    try:
        stored = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
