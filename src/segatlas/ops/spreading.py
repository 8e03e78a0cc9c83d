"""How values of a map spread to where they belong: to neighbours of one colour, or by a walk that stops at edges.

Letters: C maps, H W pixels, R = H W, P pairs of pixels, 8 directions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.ops.box_losses import neighbours

DILATIONS = (1, 2, 4, 8, 12, 24)
"""How far the neighbours of the local refinement are away."""

Step = tuple[int, int]


def refine_by_color(
    maps: Tensor, image: Tensor, *, iterations: int = 10, dilations: tuple[int, ...] = DILATIONS, sharpness: float = 0.1
) -> Tensor:
    """Return maps (C, H, W) that have spread to neighbours of one colour, after Araslanov and Roth 2020, section 3.3.

    Each pixel takes, `iterations` times, the weighted mean of its neighbours in eight directions at all distances. The
    weights are a softmax of minus the difference of colours, in units of `sharpness` times the standard deviation of
    the colours around.

    Args:
        maps: (C, H, W) float.
        image: (3, H, W) float, 0..1 or normalised.
        iterations: how often.
        dilations: distances in pixels; those beyond the image are left out.
        sharpness: smaller spreads less over edges.
    """
    height, width = maps.shape[-2:]
    used = tuple(step for step in dilations if step < max(height, width)) or dilations[:1]
    around = torch.cat([neighbours(_reflected(image, step), step)[..., step:-step, step:-step] for step in used])
    spread = around.std(dim=0, correction=0) + 1e-8  # (3, H, W)
    similar = -((around - image).abs() / (sharpness * spread)).mean(dim=1)  # (8 D, H, W)
    weight = similar.softmax(dim=0)
    for _ in range(iterations):
        new = torch.zeros_like(maps)
        for place, step in enumerate(used):
            near = neighbours(_reflected(maps, step), step)[..., step:-step, step:-step]  # (8, C, H, W)
            new += (near * weight[8 * place : 8 * place + 8, None]).sum(dim=0)
        maps = new
    return maps


def color_edges(image: Tensor, sharpness: float = 4.0) -> Tensor:
    """Return how much the colour changes at each pixel, (H, W) in 0..1: 0 in areas of one colour.

    Differences to the pixels right and below, by the largest channel, are divided by `sharpness` times their mean.

    image: (3, H, W) float.
    """
    change = torch.zeros(image.shape[-2:], dtype=image.dtype, device=image.device)
    across, down = (image.diff(dim=2).abs().amax(dim=0), image.diff(dim=1).abs().amax(dim=0))
    change[:, :-1] = across
    change[:-1] = torch.maximum(change[:-1], down)
    return (change / (sharpness * change.mean()).clamp(min=1e-8)).clamp(max=1)


@lru_cache(maxsize=8)
def half_disc(radius: int) -> tuple[Step, ...]:
    """Return one of each pair of opposite steps (rows, columns) shorter than a radius, the middle left out."""
    steps = [(0, x) for x in range(1, radius)]
    for y in range(1, radius):
        steps += [(y, x) for x in range(-radius + 1, radius) if x * x + y * y < radius * radius]
    return tuple(steps)


@lru_cache(maxsize=256)
def path_of(step: Step) -> tuple[Step, ...]:
    """Return the pixels less than one away from the straight line to a step, both ends among them."""
    length = step[0] ** 2 + step[1] ** 2
    rows = range(min(0, step[0]), max(0, step[0]) + 1)
    columns = range(min(0, step[1]), max(0, step[1]) + 1)
    return tuple((y, x) for y in rows for x in columns if (step[0] * x - step[1] * y) ** 2 < length)


def path_affinity(edges: Tensor, step: Step) -> Tensor:
    """Return 1 - the strongest edge on the straight way from each pixel to the one at a step, (..., h, w).

    Pixels whose way leaves the map are left out: the first row (column) is that of the first pixel that has one.

    edges: (..., H, W) in 0..1.
    """
    height, width = edges.shape[-2:]
    left, right = max(0, -step[1]), max(0, step[1])
    way = [edges[..., y : height - step[0] + y, left + x : width - right + x] for y, x in path_of(step)]
    return 1 - torch.stack(way).max(dim=0).values  # keeps for the gradient which was the strongest, not all of them


def random_walk(maps: Tensor, edges: Tensor, *, radius: int = 5, power: float = 10.0, steps: int = 256) -> Tensor:
    """Return maps (C, H, W) after a random walk whose steps avoid edges (Ahn et al. 2019, section 3.3).

    At each step a pixel takes the weighted mean of the pixels less than `radius` away and of itself. A weight is the
    affinity of the two, 1 - the strongest edge on the straight way, to the power of `power`; its own is 1. The walk
    begins with maps * (1 - edges).

    Args:
        maps: (C, H, W) float.
        edges: (H, W) in 0..1.
        radius: how far a step goes.
        power: larger keeps the walk further from weak edges.
        steps: how many.
    """
    height, width = edges.shape
    walk = _transitions(edges.detach().double().cpu(), radius, power)
    values = (maps * (1 - edges)).reshape(len(maps), -1).double().cpu().numpy()
    for _ in range(steps):
        values = values @ walk
    return torch.from_numpy(values).to(maps).reshape(len(maps), height, width)


def _transitions(edges: Tensor, radius: int, power: float) -> Any:
    """Return the probabilities of a step, a sparse (R, R) matrix whose columns sum to 1."""
    from scipy import sparse

    height, width = edges.shape
    number = np.arange(height * width).reshape(height, width)
    rows, columns, weights = [number.ravel()], [number.ravel()], [np.ones(height * width)]
    for step in half_disc(radius):
        if step[0] >= height or abs(step[1]) >= width:
            continue
        left, right = max(0, -step[1]), max(0, step[1])
        here = number[: height - step[0], left : width - right].ravel()
        there = here + step[0] * width + step[1]
        weight = path_affinity(edges, step).numpy().ravel() ** power
        rows += [here, there]
        columns += [there, here]
        weights += [weight, weight]
    pairs = (np.concatenate(rows), np.concatenate(columns))
    matrix = sparse.csr_matrix((np.concatenate(weights), pairs), shape=(height * width,) * 2)
    return matrix @ sparse.diags(1 / np.asarray(matrix.sum(axis=0)).ravel())


def _reflected(maps: Tensor, step: int) -> Tensor:
    """Return maps (C, H, W) with `step` pixels of the border repeated on all sides."""
    return F.pad(maps[None], (step,) * 4, mode="replicate")[0]
