"""Which of a few hundred centres is nearest to each of many points: exact, without comparing every pair.

The plane is cut into cells. In a cell only those centres can be nearest whose distance from its middle is at most the
least one plus the cell's diagonal; in most cells that is one centre, and its points are done by one look at a table.

Letters: P points, M centres, C cells with points, A points of cells with several candidates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CELL = 8.0
"""Length of a cell's side, in the unit of the points."""

PIECE = 1 << 22
"""Distances that are held at once."""

MOST_CELLS = 1 << 20
"""A plane of more cells is not cut: its points lie far apart, and all pairs are compared."""


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return (P,) int64, for each of `points` (P, 2) the row of the nearest of `centers` (M, 2), M > 0.

    Of several at the same distance, in the numbers' own precision, it is the first: `slow_nearest`, quickly.
    """
    if len(centers) == 1 or not len(points):
        return points.new_zeros(len(points), dtype=torch.long)
    low = points.amin(dim=0).floor()
    sides = ((points.amax(dim=0) - low) / CELL).long() + 1
    rows, columns = (int(side) for side in sides)
    if not points.isfinite().all() or rows * columns > MOST_CELLS:
        return slow_nearest(points, centers)
    at = ((points - low) / CELL).long()
    cell = at[:, 0] * columns + at[:, 1]
    used = torch.bincount(cell, minlength=rows * columns).nonzero()[:, 0]
    middles = torch.stack([used // columns, used % columns], dim=1) * CELL + (low + CELL / 2)
    candidates = _candidates(middles, centers)
    counts = candidates.sum(dim=1)
    order = candidates.int().argmax(dim=1)  # the first
    table = order.new_zeros(rows * columns)
    table[used] = torch.where(counts == 1, order, -1 - torch.arange(len(used), device=used.device))
    found = table[cell]
    unsure = (found < 0).nonzero()[:, 0]
    if len(unsure):
        found[unsure] = _among(points[unsure], -1 - found[unsure], candidates, counts, centers)
    return found


def slow_nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return the same as `nearest`, by comparing all pairs, some points at a time."""
    step = max(PIECE // len(centers), 1)
    parts = [squared(part, centers[None]).argmin(dim=1) for part in points.split(step)]
    return torch.cat(parts) if parts else points.new_zeros(0, dtype=torch.long)


def squared(points: Tensor, centers: Tensor) -> Tensor:
    """Return the squared distances (P, M) of points (P, 2) from centres (P or 1, M, 2)."""
    down, right = points[:, None, 0] - centers[..., 0], points[:, None, 1] - centers[..., 1]
    return down * down + right * right


def _candidates(middles: Tensor, centers: Tensor) -> Tensor:
    """Return (C, M) bool: centres that may be nearest to a point of the cell around each middle (C, 2)."""
    distances = squared(middles.double(), centers.double()[None]).sqrt()
    reach = CELL * math.sqrt(2) + 1e-4 * (1 + distances.amax(dim=1))  # with room for rounding in single precision
    return distances <= (distances.amin(dim=1) + reach)[:, None]


def _among(points: Tensor, rows: Tensor, candidates: Tensor, counts: Tensor, centers: Tensor) -> Tensor:
    """Return for points (A, 2) the nearest of the candidates that their row of (C, M) names, the first of equals."""
    most = int(counts.max())
    listed = candidates.to(torch.uint8).topk(most, dim=1).indices.sort(dim=1).values  # (C, most), some of them none
    there = candidates.gather(1, listed)
    places = torch.where(there[..., None], centers[listed], torch.inf)
    found = torch.empty_like(rows)
    step = max(PIECE // most, 1)
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        best = squared(points[part], places[rows[part]]).argmin(dim=1, keepdim=True)
        found[part] = listed[rows[part]].gather(1, best)[:, 0]
    return found
