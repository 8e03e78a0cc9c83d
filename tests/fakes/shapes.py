"""A tiny generated set: the real writer with few and small images."""

from __future__ import annotations

from pathlib import Path

from segatlas.data.shapes import make_shapes


def write_shapes(root: Path, *, train: int = 4, val: int = 2, test: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
    return make_shapes(root, train=train, val=val, test=test, size=size, seed=1)
