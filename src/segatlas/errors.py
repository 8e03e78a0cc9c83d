"""Errors a user can meet. Every one ends a command with a message instead of a stack trace, and with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segatlas.printable import printable, printable_lines


class SegAtlasError(Exception):
    """Base of all errors that are about the user's input or machine, not about a defect of ours.

    Its text has no control characters but line breaks and tabs; a name that could hold a line break goes through
    `printable` where the message is made.
    """

    exit_code = 1

    def __init__(self, message: str = ""):
        super().__init__(printable_lines(str(message)))


class UsageError(SegAtlasError):
    """Wrong words on the command line or wrong arguments to a function."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault in a configuration: where it stands, what was found, what was expected.

    file: the file the key was written in, or "override", "dict", "default" where there is none; line counts from 1.
    """

    key: str
    got: str = ""
    message: str
    line: int | None = None
    file: str | None = None


class ConfigError(UsageError):
    """A recipe that cannot be run. Carries all problems, not just the first one."""

    def __init__(self, source: str, problems: list[Problem]):
        self.source = source
        self.problems = problems
        super().__init__(self.render())

    def render(self) -> str:
        """Return the message as printed: one aligned line a problem, then what to do."""
        places = [printable(self._place(problem)) for problem in self.problems]
        wheres = [printable(p.key + (f" = {p.got}" if p.got else "")) for p in self.problems]
        place_width, where_width = max(map(len, places)), max(map(len, wheres))
        of_words = all(problem.file == "override" for problem in self.problems)
        of_words = of_words and self.source not in ("recipe", "overrides")
        lines = [f"config error in {'the words behind ' if of_words else ''}{printable(self.source)}"]
        for place, where, problem in zip(places, wheres, self.problems, strict=True):
            column = f"{place:<{place_width}}   " if place_width else ""
            lines.append(f"  {column}{where:<{where_width}}   {printable_lines(problem.message)}")
        count = len(self.problems)
        lines.append(
            f"{count} problem{'s' if count > 1 else ''}; nothing was started. Valid keys: segatlas config schema"
        )
        return "\n".join(lines)

    def _place(self, problem: Problem) -> str:
        """Return where a problem stands, "" where the first line has said it."""
        if problem.line is None:
            return problem.file or ("" if self.source == "recipe" else "recipe")
        if problem.file in (None, self.source):
            return f"line {problem.line}"
        return f"{problem.file}:{problem.line}"


class DataError(SegAtlasError):
    """An image, mask or dataset that cannot be used. `path` names the file at fault."""

    def __init__(self, message: str, path: str | Path | None = None):
        self.path = None if path is None else Path(path)
        super().__init__(f"{printable(path)}: {message}" if path is not None else message)


class TaskError(SegAtlasError):
    """A result was asked for that the model cannot give."""


class WeightsError(SegAtlasError):
    """A weights file that cannot be read, or does not fit the network."""


class TrainingError(SegAtlasError):
    """Training had to stop; what was reached so far is kept."""


class CostError(TrainingError):
    """What a loss compares is no number. images: those of the batch where it is none."""

    def __init__(self, message: str, images: Sequence[int]):
        super().__init__(message)
        self.images = tuple(images)


class MissingExtraError(SegAtlasError):
    """An optional dependency is not installed."""

    exit_code = 3

    def __init__(self, feature: str, package: str, extra: str):
        super().__init__(f'{feature} needs {package} - install it with: pip install "segatlas[{extra}]"')
