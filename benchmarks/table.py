"""All rows of the table, in its order."""

from __future__ import annotations

from benchmarks import (
    attention,
    counting,
    data_path,
    image_metrics,
    loss,
    networks,
    objects,
    plain_transformers,
    pyramids,
    queries,
    start,
    tail,
    window,
)
from benchmarks.rows import Row

ROWS: tuple[Row, ...] = (
    *tail.ROWS,
    *loss.ROWS,
    *networks.ROWS,
    *plain_transformers.ROWS,
    *pyramids.ROWS,
    *queries.ROWS,
    *attention.ROWS,
    *data_path.ROWS,
    *counting.ROWS,
    *image_metrics.ROWS,
    *objects.ROWS,
    *window.ROWS,
    *start.ROWS,
)
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))
SETS: dict[str, tuple[str, ...]] = {"networks": tuple(dict.fromkeys(row.group for row in networks.ROWS))}
"""Name for `--only` -> the groups that it stands for."""


def wanted_rows(only: str) -> tuple[list[Row], list[str]]:
    """Return the rows that words joined by commas name (keys, groups, sets; "" = all), and the words that name none."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    names = {name for word in words for name in SETS.get(word, (word,))}
    unknown = names - {*GROUPS} - {row.key for row in ROWS}
    return [row for row in ROWS if not names or {row.key, row.group} & names], sorted(unknown)


def find_row(key: str) -> Row:
    """Return the row with a key."""
    return next(row for row in ROWS if row.key == key)
