"""Tables of renames between a foreign file's tensor names and ours. A table is read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

Renames = Sequence[tuple[str, str]]
"""(theirs, ours): beginnings of names, in whole parts between dots. The first that fits is used, and what follows it in
the name is kept: ("decode_head.conv_seg", "classifier") takes `decode_head.conv_seg.weight` to `classifier.weight`.
`{i}`, `{j}`, ... stand for a number that both sides hold."""

_NUMBER = re.compile(r"\\\{(\w+)\\\}")


def to_ours(name: str, renames: Renames) -> str | None:
    """Return our name of their tensor `name`, or None where the table has none."""
    return rename(name, renames)


def to_theirs(name: str, renames: Renames) -> str | None:
    """Return their name of our tensor `name`, or None where the table has none."""
    return rename(name, ((ours, theirs) for theirs, ours in renames))


def rename(name: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    """Return `name` with its beginning replaced by the first pair (before, after) that fits, None where none does."""
    for before, after in pairs:
        start, pattern = _pattern(before)
        if name.startswith(start) and (match := pattern.match(name)):
            return after.format(**match.groupdict()) + name[match.end() :]
    return None


@lru_cache(maxsize=2**16)
def _pattern(beginning: str) -> tuple[str, re.Pattern[str]]:
    """Return what a name begins with at least, which is quick to see, and the pattern for all of the beginning."""
    escaped = re.escape(beginning)
    return beginning.partition("{")[0], re.compile(_NUMBER.sub(r"(?P<\1>\\d+)", escaped) + r"(?=\.|$)")
