"""Writers: what a result looks like as a file, one function a kind. The table loads no torch.

A task's record names the kinds that suit its results (`Task.writers`); some kinds exist for several tasks, and each has
its own function there.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from segatlas.errors import UsageError
from segatlas.output.options import WriterOptions
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    from segatlas.inference import Segmentation

ENDINGS = {
    "mask": "_mask.png",
    "color": "_color.png",
    "overlay": "_overlay.png",
    "boundary": "_boundary.png",
    "confidence": "_confidence.png",
    "instances": "_instances.png",
    "json": ".json",
}
"""Kind -> the ending of the file that it makes."""

MODULES = {"semantic": "segatlas.output.semantic", "instance": "segatlas.output.instance"}
"""Task -> the file with its writers: a function `write_KIND(result, path, options)` for each kind of its record."""


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
    getattr(import_module(MODULES[task]), f"write_{kind}")(result, path, options)
