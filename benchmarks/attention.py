"""`ops.attention.attend` against the matrix of all pairs; deformable attention against `grid_sample`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rows import SEED, Call, Equality, NotHereError, Peer, Row, Target

CHANNELS, SIDE = 256, 64
CLOSE = 1e-5
TARGET = Target(time=1.5, memory=1 / 5)
"""A matrix of all pairs is about half of what the naive form needs: a fifth leaves no room for one."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """query, key, value: (1, C, h, w). scale: factor of the products."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float


def make_maps(small: bool) -> Maps:
    side = 8 if small else SIDE
    generator = torch.Generator().manual_seed(SEED)
    query, key, value = (torch.randn(1, CHANNELS, side, side, generator=generator) for _ in range(3))
    return Maps(query=query, key=key, value=value, scale=CHANNELS**-0.5)


def ours(given: Maps) -> Call:
    try:
        from segatlas.ops.attention import attend
    except ImportError as error:
        raise NotHereError(str(error)) from error
    return torch.inference_mode()(lambda: attend(given.query, given.key, given.value, given.scale))


def naive(given: Maps) -> Call:
    def call() -> Tensor:
        query, key, value = (x.flatten(2) for x in (given.query, given.key, given.value))  # (1, C, P)
        pairs = torch.matmul(query.transpose(1, 2), key) * given.scale  # (1, P, P)
        mixed = torch.matmul(pairs.softmax(-1), value.transpose(1, 2))  # (1, P, C)
        return mixed.transpose(1, 2).reshape(given.value.shape)

    return torch.inference_mode()(call)


def close(given: Maps, own: Tensor, other: Tensor) -> Equality:
    apart = float((own - other).abs().max() / other.abs().max())
    return Equality(holds=apart <= CLOSE, text=f"relative difference {apart:.0e}")


# Deformable attention in Mask2Former's pixel decoder, 1024 x 1024 pixels: every cell of three maps is a query.

HEADS, DEPTH, POINTS = 8, 32, 4
FINEST = 128
DEFORMABLE = Target(time=1.0, memory=1 / 4)


@dataclass(frozen=True, kw_only=True)
class Places:
    """As of `segatlas.layers.deformable_attention.sample`."""

    values: Tensor
    grids: tuple[tuple[int, int], ...]
    references: Tensor
    offsets: Tensor
    weights: Tensor


def make_places(small: bool) -> Places:
    finest = 16 if small else FINEST
    grids = tuple((side, side) for side in (finest, finest // 2, finest // 4))
    cells = sum(h * w for h, w in grids)
    generator = torch.Generator().manual_seed(SEED)

    def noise(*shape: int) -> Tensor:
        return torch.randn(1, cells, *shape, generator=generator)

    return Places(
        values=noise(HEADS, DEPTH),
        grids=grids,
        references=torch.rand(1, cells, 1, 1, 2, generator=generator),
        offsets=2 * noise(HEADS, len(grids), POINTS, 2),
        weights=noise(HEADS, len(grids) * POINTS).softmax(-1).unflatten(3, (len(grids), POINTS)),
    )


def sampled(given: Places) -> Call:
    try:
        from segatlas.layers.deformable_attention import sample
    except ImportError as error:
        raise NotHereError(str(error)) from error
    return torch.inference_mode()(
        lambda: sample(given.values, given.grids, given.references, given.offsets, given.weights)
    )


def by_grid_sample(given: Places) -> Call:
    def call() -> Tensor:
        found = []
        parts = given.values.split([h * w for h, w in given.grids], dim=1)
        for level, (part, (h, w)) in enumerate(zip(parts, given.grids, strict=True)):
            maps = part.permute(0, 2, 3, 1).reshape(HEADS, DEPTH, h, w)
            places = given.references + given.offsets[:, :, :, level] / torch.tensor([w, h])
            grid = 2 * places.transpose(1, 2).flatten(0, 1) - 1  # (M, Q, P, 2)
            found.append(F.grid_sample(maps, grid, align_corners=False))  # (M, d, Q, P)
        by = given.weights.flatten(3).permute(0, 2, 1, 3)[0, :, None]  # (M, 1, Q, L P)
        summed = (torch.cat(found, dim=3) * by).sum(3)  # (M, d, Q)
        return summed.permute(2, 0, 1).flatten(1)[None]

    return torch.inference_mode()(call)


def close_places(given: Places, own: Tensor, other: Tensor) -> Equality:
    apart = float((own - other).abs().max() / other.abs().max())
    return Equality(holds=apart <= CLOSE, text=f"relative difference {apart:.0e}")


ROWS = (
    Row(
        key="non_local",
        group="attention",
        part="attention of a non-local block",
        inputs=f"{SIDE} x {SIDE} map, {CHANNELS} channels",
        material=make_maps,
        ours=ours,
        peers={"all pairs (mmseg's steps)": Peer(make=naive, target=TARGET)},
        equal=close,
    ),
    Row(
        key="deformable_attention",
        group="attention",
        part="deformable attention, sampling",
        inputs=f"21504 queries, {HEADS} heads of {DEPTH} channels, {POINTS} places in each of 3 maps",
        material=make_places,
        ours=sampled,
        peers={"grid_sample (the usual steps)": Peer(make=by_grid_sample, target=DEFORMABLE)},
        equal=close_places,
    ),
)
