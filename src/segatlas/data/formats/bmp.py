"""BMP without compression: palette indices and colours as stored. Others (run lengths, bit fields) go by Pillow."""

from __future__ import annotations

import struct

import numpy as np

from segatlas.data.formats.stored import Stored

_INFO = struct.Struct("<IiiHHII")  # size of the header, width, height, planes, depth, compression, size of the data
_INDEXED = (1, 2, 4, 8)


def is_plain_bmp(data: bytes) -> bool:
    """Whether this reader takes a file: the common header, no compression."""
    if data[:2] != b"BM" or len(data) < 54:
        return False
    size, _, _, _, depth, compression, _ = _INFO.unpack_from(data, 14)
    return size >= 40 and compression == 0 and depth in (*_INDEXED, 24, 32)


def read_bmp(data: bytes) -> Stored:
    """Decode the samples as they are stored. ValueError where rows or the palette are missing."""
    start = int.from_bytes(data[10:14], "little")
    head, width, height, _, depth, _, _ = _INFO.unpack_from(data, 14)
    rows, row_bytes = abs(height), -(-width * depth // 32) * 4
    last = -(-width * depth // 8)  # the padding of the last row may be missing
    if width <= 0 or rows == 0 or start < 14 + head:
        raise ValueError("its header is damaged")
    if len(data) < start + (rows - 1) * row_bytes + last:
        raise ValueError("truncated")
    stored = np.frombuffer(data[start : start + rows * row_bytes].ljust(rows * row_bytes, b"\0"), np.uint8)
    stored = stored.reshape(rows, row_bytes)[:: -1 if height > 0 else 1, :last]
    if depth > 8:
        samples = stored.reshape(rows, width, depth // 8)[..., 2::-1]
        return Stored(samples=np.ascontiguousarray(samples), color="rgb", largest=255)
    samples = _indices(stored, depth, width)[..., None]
    palette = _palette(data, start, head, depth)
    ramp = np.array([0, 255] if depth == 1 else range(2**depth), np.uint8)
    is_grey = len(palette) == len(ramp) and bool((palette[:, :3] == ramp[:, None]).all())
    if is_grey:
        return Stored(samples=samples, color="grey", largest=1 if depth == 1 else 255)
    return Stored(samples=samples, color="palette", palette=palette)


def _indices(stored: np.ndarray, depth: int, width: int) -> np.ndarray:
    if depth == 8:
        return np.ascontiguousarray(stored)
    flat = np.unpackbits(stored, axis=1)[:, : width * depth].reshape(len(stored), width, depth)
    indices: np.ndarray = (flat << np.arange(depth - 1, -1, -1, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return indices


def _palette(data: bytes, start: int, head: int, depth: int) -> np.ndarray:
    count = int.from_bytes(data[46:50], "little") or 2**depth
    begin = 14 + head
    if count > 2**depth or begin + 4 * count > start:
        raise ValueError("its palette is damaged")
    table = np.full((count, 4), 255, np.uint8)
    table[:, :3] = np.frombuffer(data, np.uint8, 4 * count, begin).reshape(-1, 4)[:, 2::-1]
    return table
