"""What to write in place of options, words and commands that people bring from other libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from segatlas.config.habits import KEYS, named, what_to_write
from segatlas.printable import shell_words

RECIPE_WORDS = "[RECIPE] [KEY=VALUE]..."
"""The argument of commands that take keys of a recipe."""

_PREDICT = "segatlas predict MODEL IMAGES --out DIR"
_EVAL = "segatlas eval RUN"
_TRAIN = "segatlas train DIR"
COMMANDS = {
    "test": f"{_EVAL} --split test",
    "val": _EVAL,
    "validate": _EVAL,
    "evaluate": _EVAL,
    "fit": _TRAIN,
    "finetune": f"{_TRAIN} model.start_from=MODEL",
    "infer": _PREDICT,
    "inference": _PREDICT,
    "segment": _PREDICT,
    "detect": _PREDICT,
    "track": "segatlas predict MODEL VIDEO --out VIDEO, see docs/video.md",
    "benchmark": "segatlas bench MODEL",
    "convert": "segatlas models convert FILE --out DIR, or segatlas data convert DIR OUT",
    "export": "",
    "serve": "",
}
"""Command of another library -> what to write; "" = not there, as docs/limits.md says."""


def meant_by_command(words: Sequence[str], known: Sequence[str]) -> str:
    """Return what to write for a command that is not there, and the words behind it; "" where none is meant."""
    name = words[0]
    if name not in COMMANDS:
        return ""
    if not COMMANDS[name]:
        return f"{name} is not there, see docs/limits.md"
    behind = words[1] if len(words) > 1 else ""  # yolo segment train data=...
    meant = f"segatlas {behind}" if behind in known else COMMANDS.get(behind) or COMMANDS[name]
    return f"no such command: {name}; write {meant}"


def meant_by_options(command: Any, words: Sequence[str]) -> str:
    """Return what to write for all options that a command does not have and others do, "" where none is meant.

    Only of a command that takes keys of a recipe.
    """
    if all(param.metavar != RECIPE_WORDS for param in command.params):
        return ""
    own = {name for param in command.params for name in param.opts}
    return _told([one for one in _options(words) if one[0] not in own])


def meant_by_words(words: Sequence[str]) -> str:
    """Return what to write for KEY=VALUE words whose keys are those of other libraries, "" where none is."""
    return _told([(word.partition("=")[0], word.partition("=")[2]) for word in words])


def _told(given: Sequence[tuple[str, str]]) -> str:
    """Return what to write for words and their values: keys of a recipe in one piece, then what else is to do."""
    meant = [(word, what_to_write(word, value)) for word, value in given]
    meant = [one for one, before in zip(meant, given, strict=True) if one[1] != "=".join(before)]
    keys = [(word, text) for word, text in meant if text and named(word) in KEYS]
    told = [f"for {word}: {text}" for word, text in meant if text and named(word) not in KEYS]
    if keys:
        told.insert(0, f"write {shell_words(text for _, text in keys)} for {' '.join(word for word, _ in keys)}")
    return "; ".join(told)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (name, value) of the options among words; "" where the next word is no value."""
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            behind = words[place + 1] if place + 1 < len(words) else ""
            yield name, value if equals or behind.startswith("-") or "=" in behind else behind
