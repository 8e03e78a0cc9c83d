"""All commands of the command line by their words, as the parser knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from segatlas.cli.main import app


def _commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{path} {name}".strip())


TREE: dict[str, Any] = dict(_commands(typer.main.get_command(app)))
"""Words behind `segatlas` -> command or group; "" is the program itself."""
