"""All rows of the table, in its order."""

from __future__ import annotations

from benchmarks import attention, counting, data_path, loss, networks, start, tail, window
from benchmarks.rows import Row

ROWS: tuple[Row, ...] = (
    *tail.ROWS,
    *loss.ROWS,
    *networks.ROWS,
    *attention.ROWS,
    *data_path.ROWS,
    *counting.ROWS,
    *window.ROWS,
    *start.ROWS,
)
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


def find_row(key: str) -> Row:
    """Return the row with a key."""
    return next(row for row in ROWS if row.key == key)
