"""What a run writes down while it trains: metrics.csv, log.txt, and what its trackers get."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from logging.handlers import MemoryHandler
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from segatlas.config.old_keys import OLD_COLUMNS, todays_name
from segatlas.errors import TrainingError
from segatlas.files import read_text, whole_file
from segatlas.printable import SafeRecords, printable
from segatlas.recipe import Config
from segatlas.safe_console import SafeConsole
from segatlas.training.run import RunFolder
from segatlas.training.trackers import Guarded, end_of, head_of

LOGGER = logging.getLogger("segatlas")


@cache
def terminal() -> Console:
    """Return the one console of a training: a bar and log lines on two would overwrite each other."""
    return SafeConsole(stderr=True, highlight=False)


def columns(scores: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of metrics.csv for a task with these scores."""
    return ("step", "epoch", "lr", "loss", "images_per_s", *(f"val_{name}" for name in scores), "terms")


class Logbook:
    """Appends rows to metrics.csv and passes numbers to trackers. One per run, on the first process only.

    `scores`: names of the scores of a validation; each has a column.
    `trackers`: programs that show runs, see `segatlas.training.trackers`.
    `resumed`: the rows that are there belong to this run; else they are an earlier one's, and are replaced.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        scores: Iterable[str],
        trackers: Sequence[Guarded] = (),
        resumed: bool = False,
    ):
        self.path, self.folder, self.trackers = folder.metrics, folder, trackers
        self.columns = columns(scores)
        if not resumed or not self.path.exists():
            self._write("w", [list(self.columns)])

    def begin(self, config: Config) -> None:
        """Begin with the trackers: say what each gets, and attach recipe and environment."""
        for tracker in self.trackers:
            if line := tracker.begin(config):
                LOGGER.info("%s", line)
            for path in head_of(self.folder):
                tracker.file(path)

    def rewind(self, step: int) -> None:
        """Drop rows past `step`: a killed run may have written some that its checkpoint does not hold.

        The columns stay those of the file: a version that watches further scores writes none of them there.
        """
        kept = list(csv.reader(read_text(self.path, error=TrainingError).splitlines()))
        head, *rows = kept or [list(self.columns)]  # a power failure may leave an empty file, or half of a line
        if head[-1] != self.columns[-1]:
            head = list(self.columns)
        head = [todays_name(name, OLD_COLUMNS, of=self.path.name) for name in head]
        self.columns = tuple(head)
        whole = [row for row in rows if len(row) == len(head) and row[0].isdigit()]  # a kill may cut a row short
        with whole_file(self.path, error=TrainingError) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([head, *(row for row in whole if int(row[0]) <= step)])

    def add(self, step: int, epoch: int, values: dict[str, float], terms: dict[str, float] | None = None) -> None:
        """Write one row; columns without a value stay empty."""
        row: list[object] = [step, epoch]
        row += [f"{values[name]:.6g}" if name in values else "" for name in self.columns[2:-1]]
        row.append(" ".join(f"{name}={value:.6g}" for name, value in (terms or {}).items()))
        self._write("a", [row])
        shown = {name.replace("val_", "val/"): value for name, value in {**values, **(terms or {})}.items()}
        for tracker in self.trackers:
            tracker.numbers(step, shown)

    def sheet(self, step: int, path: Path, pixels: np.ndarray) -> None:
        """Pass on the sheet of a validation, written to `path`: (H, W, 3) uint8 pixels."""
        for tracker in self.trackers:
            tracker.image(step, "samples", path, pixels)

    def close(self, *, finished: bool) -> None:
        """Attach the files of the end and close. finished: the run came to its end."""
        for tracker in self.trackers:
            for path in end_of(self.folder):
                tracker.file(path)
            tracker.close(finished=finished)

    def _write(self, mode: str, rows: list[list[object]] | list[list[str]]) -> None:
        try:
            with self.path.open(mode, newline="") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror or error}") from error


class LogFile(logging.FileHandler):
    """log.txt. A full disk is reported once, where a checkpoint or metrics.csv meets it, not at every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""

    def close(self) -> None:
        """Close the file, whether or not its last lines could be written."""
        with suppress(OSError):
            super().close()


class TerminalHandler(logging.Handler):
    """The terminal: a message is one line of any length, so that paths can be copied; warnings say what they are.

    A record made with `printable.on_terminal` is told in that text, or not at all.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print above the bar, where there is one."""
        told = getattr(record, "on_terminal", None)
        if told == "":
            return
        warns = record.levelno >= logging.WARNING
        text = record.getMessage() if told is None else printable(told)
        text = f"warning: {text}" if warns else text
        terminal().print(Text(text, style="yellow" if warns else ""), soft_wrap=True)


class DataLinesOnce(logging.Filter):
    """Lets a line about the data through once: a run opens its data again for the evaluation at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is new."""
        if not record.name.startswith("segatlas.data."):
            return True
        text = record.getMessage()
        new = text not in self.said
        self.said.add(text)
        return new


def hold_log() -> MemoryHandler:
    """Keep what is said before the run folder exists; hand the result to `open_log`."""
    held = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    LOGGER.setLevel(logging.INFO)
    LOGGER.addHandler(held)
    return held


def open_log(path: Path, held: MemoryHandler, *, quiet: bool) -> list[logging.Handler]:
    """Send the log, from what was `held` on, to `path` and to the terminal; close with `close_log`.

    quiet: to the terminal warnings alone.
    """
    handlers: list[logging.Handler] = [LogFile(path), TerminalHandler(logging.WARNING if quiet else logging.NOTSET)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.removeHandler(held)
    for handler in handlers:
        handler.addFilter(SafeRecords())
        handler.addFilter(DataLinesOnce())
        LOGGER.addHandler(handler)
        for record in held.buffer:
            if record.levelno >= handler.level:
                handler.handle(record)
    return handlers


def close_log(handlers: list[logging.Handler] | None = None) -> None:
    """Detach and close what `open_log` returned; None = all that a training has attached, however it ended."""
    if handlers is None:
        handlers = [one for one in LOGGER.handlers if isinstance(one, LogFile | TerminalHandler | MemoryHandler)]
    for handler in handlers:
        LOGGER.removeHandler(handler)
        handler.close()
