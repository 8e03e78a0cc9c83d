"""Writers: what a result looks like as a file, one function a kind. The table loads no torch.

A task's record names the kinds that suit its results (`Task.writers`); some kinds exist for several tasks, and each has
its own function there.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.errors import UsageError
from segatlas.output.options import WriterOptions
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    import numpy as np

    from segatlas.inference import Segmentation

_OTHER_ENDINGS = {
    "json": ".json",
    "coco": "_coco.json",
    "labelme": "_labelme.json",
    "geojson": ".geojson",
    "csv": ".csv",
}
"""Kinds whose files do not end in `_KIND.png`."""

MOVING = ("overlay", "color", "boundary", "confidence")
"""Kinds that are images for people, in the image's own size: of a video they are videos, all others files a frame."""


def tasks_with_writers() -> tuple[str, ...]:
    """Return the tasks that have a file of writers here: `TASK.py` with `write_KIND(result, path, options)`."""
    return tuple(task for task in TASKS if find_spec(f"{__name__}.{task}") is not None)


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


def write(task: str, kind: str, result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write one file of a result; it appears under its name only when complete."""
    getattr(import_module(f"{__name__}.{task}"), f"write_{kind}")(result, path, options)


def draw(task: str, kind: str, result: Segmentation) -> np.ndarray:
    """Return a result as an image (H, W, 3) uint8 of its own size, of one of the kinds MOVING."""
    image: np.ndarray = getattr(import_module(f"{__name__}.{task}"), f"draw_{kind}")(result)
    return image
