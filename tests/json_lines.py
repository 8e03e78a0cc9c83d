"""Compares what a command prints with --json with its keys in `segatlas.cli.json_lines`."""

from __future__ import annotations

import json
import os
from typing import Any

from segatlas.cli.examples import CommandWithExamples, path_of
from segatlas.printable import json_line

SEEN = "SEGATLAS_SEEN_LINES"
"""Environment variable: a file that gets the command and the keys of each line that was compared."""

_running: list[str] = []
_invoke = CommandWithExamples.invoke


def invoke(command: CommandWithExamples, ctx: Any) -> Any:
    """Run a command, and know meanwhile which one it is."""
    _running.append(path_of(ctx))
    try:
        return _invoke(command, ctx)
    finally:
        _running.pop()


def checked_line(payload: Any) -> str:
    """Return the line, as `json_line` does. AssertionError where it has a key more or less, or one of another kind."""
    line = json_line(payload)
    if _running:
        from segatlas.cli.json_lines import reader

        try:
            reader(_running[-1]).validate_json(line)
        except ValueError as error:
            raise AssertionError(f"segatlas {_running[-1]} --json: {error}\n{line}") from None
        if os.environ.get(SEEN):
            keys = ",".join(json.loads(line)) if line.startswith("{") else "a list"
            with open(os.environ[SEEN], "a", encoding="utf-8") as file:
                file.write(f"{_running[-1]}\t{keys}\n")
    return line
