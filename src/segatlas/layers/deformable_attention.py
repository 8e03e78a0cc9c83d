"""Deformable attention: each query looks at a few places of some maps instead of at all of their cells.

Paper: Zhu et al. 2021, "Deformable DETR: Deformable Transformers for End-to-End Object Detection",
https://arxiv.org/abs/2010.04159, equation 3.

Idea: a query stands at a place of the image. Linear maps of it say how far from there each head looks in each map, P
places a map, and how much each place counts. The values there are bilinear, exactly as `grid_sample` gives them with
zeros outside (`align_corners=False`), and their weighted sum is the answer.

Letters: N batch, C width, M heads, d channels of a head, L maps ("levels"), P places a map, Q queries, T cells of all
maps.

How ours differs: the four cells around each place and their weights go straight into one weighted sum of table rows
(torch's `embedding_bag`), so that the values at places, (Q, M, L P, d), never exist. What exists of a query are 4 L P
row numbers (32 bits) and weights a head, whatever d; without gradients queries are gone through in pieces, so that even
these stay below `ENTRIES`. No compiled extension, and unlike `grid_sample` it has a deterministic backward on GPUs.
`python -m benchmarks --only deformable_attention --out FILE` compares it with the usual form: 21504 queries, 8 heads, 3
maps of a 1024 x 1024 image take 60 MiB besides input and result, against 782 (2-core cloud machine, x86, 2026-11-28).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.linear import TokenLinear
from segatlas.ops.capture import is_captured

ENTRIES = 2**20
"""Row numbers that exist at once where no gradient is wanted: 4 MiB, and as much for their weights."""

Grid = tuple[int, int]
"""(h, w) of a map."""


class DeformableAttention(nn.Module):
    """Deformable attention of queries over one or several maps of the same width.

    Parameters are called as the authors call theirs: `sampling_offsets` (M L P 2), `attention_weights` (M L P),
    `value_proj`, `output_proj`.

    Args:
        width: C, of queries, maps and result.
        heads: M.
        levels: L, maps.
        points: P, places that a head looks at in each map.
        value_ratio: width of the values as a fraction of C.
    """

    def __init__(self, width: int, *, heads: int, levels: int, points: int = 4, value_ratio: float = 1.0):
        super().__init__()
        values = int(width * value_ratio)
        if values % heads:
            raise ValueError(f"width of the values: got {values}, expected a multiple of {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = TokenLinear(width, heads * levels * points * 2)
        self.attention_weights = TokenLinear(width, heads * levels * points)
        self.value_proj = TokenLinear(width, values)
        self.output_proj = TokenLinear(values, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the paper's starting weights: head m looks in its own direction, place k of it k cells away."""
        angles = torch.arange(self.heads, device="cpu") * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, device="cpu")[:, None]
        offsets = directions[:, None, None] * steps  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        for weight in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(weight)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, references: Tensor, cells: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Let queries look at maps.

        Args:
            query: (N, Q, C).
            references: (Q, 2) or (N, Q, 2) float, x and y of each query as fractions of the maps' width and height.
            cells: (N, T, C), the cells of all maps: the first map row by row, then the next.
            grids: (h, w) of each map.

        Returns:
            (N, Q, C).
        """
        n, queries = query.shape[:2]
        shape = (n, queries, self.heads, self.levels, self.points)
        values = self.value_proj(cells).unflatten(2, (self.heads, -1))  # (N, T, M, d)
        exact = torch.promote_types(query.dtype, torch.float32)  # half precision cannot tell cells of large maps apart
        offsets = self.sampling_offsets(query).to(exact).reshape(*shape, 2)
        scores = self.attention_weights(query).to(exact).reshape(n, queries, self.heads, -1)
        weights = scores.softmax(dim=-1).reshape(shape)
        references = references.to(exact).reshape(-1, queries, 1, 1, 2)  # N or 1 first
        out: Tensor = self.output_proj(sample(values, grids, references, offsets, weights))
        return out


def sample(values: Tensor, grids: Sequence[Grid], references: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of bilinear values at places beside reference points.

    Args:
        values: (N, T, M, d), cells of all maps as in `DeformableAttention.forward`.
        grids: (h, w) of each map.
        references: (N or 1, Q, 1, 1, 2), x and y as fractions of width and height.
        offsets: (N, Q, M, L, P, 2), x and y in cells of each map.
        weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M * d); a cell outside its map counts as zero.
    """
    n, cells, heads, depth = values.shape
    # Row (image, cell, head) of the table: a head's channels are adjacent, and nothing is copied.
    table = values.reshape(n * cells * heads, depth)
    image = torch.arange(n, device=values.device).reshape(n, 1, 1) * cells
    first = (image * heads + torch.arange(heads, device=values.device)).to(torch.int32)  # (N, 1, M)
    references = references.expand(n, -1, -1, -1, -1)
    pieces = []
    for part in _pieces(offsets):
        rows, factors = corners(grids, references[:, part], offsets[:, part], weights[:, part])
        rows = rows * heads + first[..., None]
        bags = (-1, rows.shape[-1])
        summed = F.embedding_bag(
            rows.reshape(bags), table, mode="sum", per_sample_weights=factors.reshape(bags).to(table.dtype)
        )
        pieces.append(summed.reshape(n, -1, heads * depth))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def corners(grids: Sequence[Grid], references: Tensor, offsets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells around places and what each counts, both (N, Q, M, 4 L P); arguments as of `sample`.

    A cell is numbered within its image, int32. One outside its map is replaced by some cell inside that counts nothing.
    """
    rows, factors = [], []
    start = 0
    neighbour = torch.arange(2, device=offsets.device)
    for level, (height, width) in enumerate(grids):
        axes = []
        for axis, size in ((1, height), (0, width)):
            place = references[..., axis] * size - 0.5 + offsets[..., level, :, axis]  # (N, Q, M, P), in cells
            # Far outside nothing counts; there a place is pulled in, so that it fits into 32 bits.
            place = place.clamp(-2, size + 1)
            low = place.detach().floor()
            after = place - low
            cell = low.to(torch.int32)[..., None] + neighbour.to(torch.int32)  # (N, Q, M, P, 2)
            inside = (cell >= 0) & (cell < size)
            factor = torch.stack([1 - after, after], dim=-1) * inside
            axes.append((cell.clamp(min=0).clamp(max=size - 1), factor))
        (y, by_y), (x, by_x) = axes
        rows.append((y[..., :, None] * width + x[..., None, :] + start).flatten(3))
        factors.append((weights[..., level, :, None, None] * by_y[..., :, None] * by_x[..., None, :]).flatten(3))
        start += height * width
    return torch.cat(rows, dim=-1), torch.cat(factors, dim=-1)


def centers(grids: Sequence[Grid], device: torch.device | None = None) -> Tensor:
    """Return x and y of the centres of the cells of maps, one map after the other: (T, 2) float32, 0..1."""
    found = []
    for height, width in grids:
        y, x = ((torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size for size in (height, width))
        found.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1).flatten(0, 1))
    return torch.cat(found)


def _pieces(offsets: Tensor) -> list[slice]:
    """Return the queries in pieces small enough; all at once where a backward needs all, or a program is recorded."""
    if offsets.requires_grad or is_captured():
        return [slice(None)]
    n, queries, heads, levels, points, _ = offsets.shape
    step = max(1, ENTRIES // (4 * n * heads * levels * points))
    return [slice(start, start + step) for start in range(0, queries, step)]
