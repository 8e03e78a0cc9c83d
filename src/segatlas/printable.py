r"""Make text safe to print: names of files, classes, tensors and keys come from other people.

A terminal obeys control characters: an escape sequence in a file name can clear the screen, a line break can fake a
line of ours, and a direction mark can show a name backwards. They are written as the escapes of a Python text
(`\x1b`, `\n`, `\u202e`); letters of every script, accents and emoji stay.
"""

from __future__ import annotations

import html
import json
import logging
import math
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control characters, invisible formats such as direction marks, halves of pairs, and separators of lines."""

_JOINERS = "\u200c\u200d"
"""Without them, words of some scripts and many emoji are others."""

_LINES = "\n\t"

_SHELL_SIGNS = frozenset('"$`\\!')
"""What a shell reads between double quotes, too."""


def printable(value: object) -> str:
    """Return a name as one safe line: every control character, line breaks too, becomes its escape."""
    return _escaped(str(value), _JOINERS)


def printable_lines(text: str) -> str:
    """Return a message of ours with only line breaks and tabs left of its control characters: the last guard."""
    return _escaped(text, _JOINERS + _LINES)


def shortened(value: object, most: int = 60) -> str:
    """Return `printable(value)`, cut to `most` characters."""
    text = printable(value if not isinstance(value, str) else value[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def json_line(payload: Any) -> str:
    """Return JSON in one safe line that every reader takes: escapes in place of control characters, null for NaN."""
    text = json.dumps(_finite(payload), ensure_ascii=False, default=str, allow_nan=False)
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if not _is_unsafe(char, _JOINERS) else _json_escape(char) for char in text)


def html_text(text: str) -> str:
    """Return text for a page: letters that are markup as entities, control characters as escapes."""
    return html.escape(printable_lines(text))


def shell_words(words: Iterable[object]) -> str:
    """Return words as a person would type them in a shell: double quotes around such as hold single ones."""
    return " ".join(map(_shell_word, map(str, words)))


def on_terminal(text: str) -> dict[str, str]:
    """Return the `extra` of a log record that a terminal shows as this text, "" = not at all; log.txt has its own."""
    return {"on_terminal": text}


class SafeRecords(logging.Filter):
    """Makes the text of log records safe; lines after a record's first one are indented, so that they fake none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and keep it."""
        record.msg, record.args = printable_lines(record.getMessage()).replace("\n", "\n    "), None
        return True


def _shell_word(word: str) -> str:
    return f'"{word}"' if "'" in word and not _SHELL_SIGNS & set(word) else shlex.quote(word)


def _escaped(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if _is_unsafe(char, kept) else char for char in text)


def _is_unsafe(char: str, kept: str) -> bool:
    return unicodedata.category(char) in _ESCAPED and char not in kept


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1]


def _finite(value: Any) -> Any:
    """Copy with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
