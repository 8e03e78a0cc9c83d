"""Small seeded images and hand-made files for the fake datasets and the tests of readers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def blocks(index: int, codes: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return an (H, W) map of rectangles that holds every code, another order for every index."""
    height, width = size
    order = np.random.default_rng(index).permutation(np.asarray(codes))
    columns = int(np.ceil(np.sqrt(len(order))))
    rows = int(np.ceil(len(order) / columns))
    cell = (np.arange(height)[:, None] * rows // height) * columns + np.arange(width)[None, :] * columns // width
    return order[cell % len(order)].astype(np.int64)


def image_of(codes: np.ndarray, index: int, channels: int = 3) -> np.ndarray:
    """Return an (H, W, C) uint8 image whose colours follow the map, with noise: learnable, but not constant."""
    rng = np.random.default_rng(1000 + index)
    table = np.random.default_rng(7).integers(30, 226, (256, channels))
    noisy = table[codes % 256] + rng.integers(-20, 21, (*codes.shape, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path)


def save_codes(path: Path, codes: np.ndarray, palette: Sequence[tuple[int, int, int]] | None = None) -> None:
    """Write codes as grey PNG, or as palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(codes.astype(np.uint8))
    if palette is not None:
        flat = [value for color in palette for value in color]
        image.putpalette(flat + [0] * (768 - len(flat)))
    image.save(path)


def raw_png(
    rows: Sequence[bytes], width: int, depth: int, color_type: int, height: int | None = None, extra: bytes = b""
) -> bytes:
    """Return a PNG file made chunk by chunk: any depth, and a header that may lie about the height."""
    header = struct.pack(">IIBBBBB", width, height or len(rows), depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
