"""What all commands share: common options, errors without a stack trace, one JSON line, recipes with overrides."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from segatlas.cache import OFFLINE_VARIABLE
from segatlas.cli import completion
from segatlas.cli.foreign_words import RECIPE_WORDS
from segatlas.errors import ConfigError, DataError, SegAtlasError, UsageError
from segatlas.printable import json_line, printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.recipe import Config
    from segatlas.structures import InputSpec

Found = TypeVar("Found")
INTERRUPTED = 130
_debug: ContextVar[bool] = ContextVar("debug", default=False)


def set_debug(value: bool) -> bool:
    """Remember that `--debug` was given, before the command or after it."""
    if value:
        _debug.set(True)
    return value


def reset_debug() -> None:
    """Forget an earlier `--debug`: several commands may run in one process."""
    _debug.set(False)


def set_offline(context: typer.Context, value: bool) -> bool:
    """Switch downloads off until the command ends, in processes that it starts too."""
    if value:
        before = os.environ.get(OFFLINE_VARIABLE, "")
        os.environ[OFFLINE_VARIABLE] = "1"
        context.call_on_close(lambda: os.environ.update({OFFLINE_VARIABLE: before}))  # empty means not set
    return value


Words = Annotated[
    list[str] | None,
    typer.Argument(metavar=RECIPE_WORDS, show_default=False, autocompletion=completion.recipe_words),
]
ConfigFileOption = Annotated[Path | None, typer.Option("--config", help="A recipe file, in place of RECIPE.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", callback=set_debug, is_eager=True, help="Show the stack trace of an error.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or mps.", autocompletion=completion.devices)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable last line.")]
OfflineOption = Annotated[bool, typer.Option("--offline", callback=set_offline, help="Download no weights.")]
CommercialOption = Annotated[
    bool, typer.Option("--commercial-ok", help="Refuse weights whose licence forbids commercial use.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print warnings and errors only, and the score where there is one.")
]


@contextmanager
def guard() -> Iterator[None]:
    """Turn errors into a message on stderr and an exit code. All commands run inside it.

    Exit codes: the error's own (1 run failed, 2 usage or config, 3 missing extra), 130 interrupted. `--debug` shows the
    stack trace besides.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
        raise  # typer's own: usage errors, --help, a closed pipe
    except KeyboardInterrupt as error:
        raise _stop("interrupted", INTERRUPTED) from error
    except SegAtlasError as error:
        message = str(error) if isinstance(error, ConfigError) else _with_indented_lines(f"error: {error}")
        raise _stop(message, error.exit_code) from error
    except OSError as error:
        file = f"{printable(error.filename)}: " if error.filename else ""
        raise _stop(f"error: {file}{error.strerror or error}", 1) from error
    except Exception as error:
        text = str(error).partition("Traceback (most recent call last)")[0].strip()  # of a loader process, by torch
        message = f"unexpected error: {type(error).__name__}: {text}"
        message = _with_indented_lines(message)
        raise _stop(f"{message} - rerun with --debug for the trace; please report it", 1) from error


def _with_indented_lines(message: str) -> str:
    """Indent all lines of a message but the first: a line break in a name then fakes no line of ours."""
    return re.sub(r"\n(?=[^\s])", "\n  ", message)


def _stop(message: str, exit_code: int) -> typer.Exit:
    if _debug.get():
        traceback.print_exc()
    print(printable_lines(message), file=sys.stderr)
    return typer.Exit(exit_code)


def human(*, json_line: bool = False) -> Console:
    """Return the console for people: stdout, or stderr where `--json` keeps stdout for the machine."""
    from segatlas.safe_console import SafeConsole

    return SafeConsole(stderr=json_line, highlight=False, soft_wrap=True, markup=False)


def say(*lines: str) -> None:
    """Print lines to stdout; of control characters only line breaks and tabs go through."""
    for line in lines:
        print(printable_lines(line))


def print_json_line(payload: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print the one machine-readable line of `--json` to stdout. Paths become texts, NaN null."""
    print(json_line(payload), flush=True)


def split_words(words: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Split command-line words into a recipe and `key=value` overrides.

    A word with "=" in it is an override, never a recipe, also in the first place.

    Raises:
        UsageError: a word after the first is no override.
    """
    words = list(words or ())
    recipe = words.pop(0) if words and "=" not in words[0] else None
    for word in words:
        if "=" not in word:
            raise UsageError(f"expected KEY=VALUE, got '{word}' (the recipe comes first, and only one)")
    return recipe, words


def load_recipe(words: Sequence[str] | None, config_file: Path | None = None) -> Config:
    """Load `[RECIPE|--config FILE] [KEY=VALUE]...`. With neither, the defaults with the overrides.

    Raises:
        UsageError: both RECIPE and --config are given.
        ConfigError: the recipe is faulty.
    """
    from segatlas.recipe import Config

    recipe, overrides = split_words(words)
    if recipe is not None and config_file is not None:
        raise UsageError(f"give RECIPE or --config FILE, not both (got '{recipe}' and '{config_file}')")
    return Config.load(config_file or recipe or {}, *overrides)


@contextmanager
def telling_lines(words: Sequence[str], config_file: Path | None = None) -> Iterator[None]:
    """Tell file and line of a key whose fault showed only after the recipe was read; arguments as `load_recipe`."""
    try:
        yield
    except ConfigError as error:
        from segatlas.config.loading import located

        recipe, overrides = split_words(words)
        raise located(error, config_file or recipe or {}, overrides) from None


@contextmanager
def telling_moved_data() -> Iterator[None]:
    """Say which key names the place of a run's data, where these are not any more where they were."""
    try:
        yield
    except DataError as error:
        from segatlas.data.datasets.paired import MissingRootError

        if not isinstance(error, MissingRootError):
            raise
        text = str(error).removeprefix(f"{printable(error.path)}: ")
        raise DataError(f"{text}; if the data were moved, add their place: data.root=FOLDER", error.path) from error


UNNAMED = ""
"""The name of what --aux gives as a path alone, until the model tells what its one source is called."""


def aux_paths(words: Sequence[str], form: str = "NAME=PATH") -> dict[str, Path]:
    """Return what each --aux names; a path alone, with no `=` or of something that is there, as `UNNAMED`.

    Raises:
        UsageError: another form than that which is told, a name twice, several paths alone.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if word and (not sign or Path(word).exists()):
            name, text = UNNAMED, word
        elif not (name and text):
            raise UsageError(f"--aux: got {word!r}, expected {form}, such as before=before.png")
        if name in found:
            told = f"{name} is given twice" if name else f"several without a name ({found[name]}, {text}); give {form}"
            raise UsageError(f"--aux: {told}")
        found[name] = Path(text)
    return found


def named_aux(found: Mapping[str, Found] | None, inputs: Sequence[InputSpec]) -> dict[str, Found] | None:
    """Return what --aux gives, with the name of the model's one source for what has none; None of None.

    Args:
        found: by name, or `UNNAMED`.
        inputs: what the model takes, the image first.

    Raises:
        UsageError: something has no name, and the model takes no source or several, or that one is named, too.
    """
    if found is None or UNNAMED not in found:
        return None if found is None else dict(found)
    names = [spec.name for spec in inputs[1:]]
    if not names:
        raise UsageError("--aux: the model takes an image alone, and nothing besides")
    if len(names) > 1:
        raise UsageError(f"--aux: the model takes {', '.join(names)}; say which one it is: {names[0]}=PATH")
    if names[0] in found:
        raise UsageError(f"--aux: {names[0]} is given twice, with and without its name")
    return {name or names[0]: path for name, path in found.items()}
