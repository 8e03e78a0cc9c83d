"""Which of two sets go together at the lowest sum of costs: the assignment problem, for matrices of a few hundred rows.

Kuhn 1955, by shortest augmenting paths (Jonker and Volgenant 1987, Crouse 2016): rows are placed one after the other,
each along the cheapest path of exchanges.
"""

from __future__ import annotations

import numpy as np


def assigned(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pairs of the lowest sum, each (min(R, C),) int64, by rising row.

    Every row or, where there are more of them, every column has a partner.

    Args:
        costs: (R, C), finite.
    """
    if costs.shape[0] > costs.shape[1]:
        columns, rows = assigned(costs.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    costs = np.ascontiguousarray(costs, dtype=np.float64)
    count, width = costs.shape
    of_row, of_column = np.zeros(count), np.zeros(width)  # prices: no pair costs less than both
    partner, owner = np.full(count, -1), np.full(width, -1)
    for row in range(count):
        lowest, came_from, reached, seen = _cheapest_path(costs, of_row, of_column, owner, row)
        end = int(reached[-1])
        least = lowest[end]
        of_row[row] += least
        others = [one for one in seen if one != row]
        of_row[others] += least - lowest[partner[others]]
        of_column[reached] -= least - lowest[reached]
        column = end
        while True:  # everybody along the path takes the next one's place
            taker = came_from[column]
            owner[column] = taker
            partner[taker], column = column, partner[taker]
            if taker == row:
                break
    return np.arange(count), partner


def _cheapest_path(
    costs: np.ndarray, of_row: np.ndarray, of_column: np.ndarray, owner: np.ndarray, row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Look from a row for the nearest free column.

    Returns: the cost of reaching each column, the row from which it was reached, the columns that were settled, the
        free one last, and the rows that were passed.
    """
    width = costs.shape[1]
    lowest, came_from = np.full(width, np.inf), np.full(width, -1)
    open_columns = np.ones(width, bool)
    reached: list[int] = []
    seen: list[int] = []
    so_far = 0.0
    while True:
        seen.append(row)
        reach = so_far + costs[row] - of_row[row] - of_column
        better = open_columns & (reach < lowest)
        lowest[better], came_from[better] = reach[better], row
        column = int(np.where(open_columns, lowest, np.inf).argmin())
        so_far = float(lowest[column])
        open_columns[column] = False
        reached.append(column)
        if owner[column] < 0:
            return lowest, came_from, np.array(reached), seen
        row = int(owner[column])
