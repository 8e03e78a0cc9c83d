"""The kinds of files that a result can be written as, and who writes them. Loads no torch.

A task's record names the kinds that suit its results (`Task.writers`); some kinds exist for several tasks, and each has
its own function there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segatlas.errors import UsageError
from segatlas.output.options import WriterOptions
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np

    from segatlas.structures import ImageResult

_OTHER_ENDINGS = {
    "json": ".json",
    "coco": "_coco.json",
    "labelme": "_labelme.json",
    "geojson": ".geojson",
    "csv": ".csv",
}
"""Kinds whose files do not end in `_KIND.png`."""

MEASURED = ("json", "geojson", "csv")
"""Kinds that say areas and lengths, in a unit too where a pixel's size is known."""

MOVING = ("overlay", "color", "boundary", "confidence")
"""Kinds that are images for people, in the image's own size: of a video they are videos, all others files a frame."""


ALWAYS_PNG = ("mask", "instances", "panoptic")
"""Kinds whose pixels are numbers: no other format of images is written."""


def tasks_with_writers() -> tuple[str, ...]:
    """Return the tasks that have a file of writers here: `TASK.py` with `write_KIND(result, path, options)`."""
    return tuple(task for task in TASKS if find_spec(f"{__package__}.{task}") is not None)


def all_kinds() -> tuple[str, ...]:
    """Return the kinds of all tasks that have writers, those of the first task first."""
    return tuple(dict.fromkeys(kind for task in tasks_with_writers() for kind in TASKS[task].writers))


def ending_of(kind: str) -> str:
    """Return what the name of a file of this kind ends with."""
    return _OTHER_ENDINGS.get(kind, f"_{kind}.png")


def kinds_of(task: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kinds to write: those wanted, else the first two of the task.

    Raises:
        UsageError: a kind that the task's results have no file for.
    """
    able = TASKS[task].writers
    for kind in wanted or ():
        if kind not in able:
            raise UsageError(f"--save: got {kind!r}, but the model's task is {task}; expected some of {','.join(able)}")
    return able[:2] if wanted is None else tuple(wanted)


def write(task: str, kind: str, result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write one file of a result; it appears under its name only when complete."""
    getattr(import_module(f"{__package__}.{task}"), f"write_{kind}")(result, path, options)


def table_rows(task: str, result: ImageResult, options: WriterOptions, file: str) -> list[dict[str, Any]]:
    """Return what an image, called `file`, adds to a table of the task, see `Task.tables`."""
    found: list[dict[str, Any]] = import_module(f"{__package__}.{task}").table_rows(result, options, file)
    return found


def write_table(task: str, rows: Sequence[Mapping[str, Any]], path: Path, options: WriterOptions) -> None:
    """Write a table of the task; it appears under its name only when complete."""
    import_module(f"{__package__}.{task}").write_table(rows, path, options)


def record(task: str, result: ImageResult, options: WriterOptions, stem: str) -> dict[str, Any]:
    """Return what the kind "json" writes, as plain data; `stem` is what the files of the result are called by."""
    found: dict[str, Any] = import_module(f"{__package__}.{task}").record(result, options, stem)
    return found


def draw(task: str, kind: str, result: ImageResult) -> np.ndarray:
    """Return a result as an image (H, W, 3) uint8 of its own size, of one of the kinds MOVING."""
    image: np.ndarray = getattr(import_module(f"{__package__}.{task}"), f"draw_{kind}")(result)
    return image
