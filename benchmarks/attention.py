"""Attention of a non-local block: `ops.attention.attend` against the matrix of all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
)
