"""Image files made byte by byte from the formats' own documents: what a reader must give is known before it reads.

Samples are (H, W, C) integers or floats. No image library is used, so that a reader is never tested with itself.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence

import numpy as np

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


def pack_rows(samples: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Return the bytes of each row of (H, W, C): most significant bit first, rows begin at bytes."""
    if bits >= 8 and bits % 8 == 0:
        return [np.ascontiguousarray(row).astype(samples.dtype.newbyteorder(order)).tobytes() for row in samples]
    shifts = np.arange(bits - 1, -1, -1)
    rows = samples.reshape(len(samples), -1, 1).astype(np.int64) >> shifts & 1
    return [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in rows]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    samples: np.ndarray,
    depth: int,
    color_type: int,
    *,
    interlaced: bool = False,
    palette: bytes = b"",
    before: bytes = b"",
    after: bytes = b"",
    height: int | None = None,
    pieces: int = 1,
) -> bytes:
    """Return a PNG whose rows use all five filters in turn; `height` may lie, `before`, `after` are further chunks."""
    if depth == 16:
        samples = samples.astype(np.uint16)
    step = max(1, depth * PNG_SAMPLES[color_type] // 8)
    parts = [samples]
    if interlaced:
        parts = [samples[top::down, left::across] for top, left, down, across in PASSES]
    plain = b"".join(filtered(pack_rows(part, depth), step) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", samples.shape[1], height or len(samples), depth, color_type, 0, 0, interlaced)
    packed = zlib.compress(plain)
    cuts = np.linspace(0, len(packed), pieces + 1).astype(int)
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(cuts))
    table = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + table + before + data + after + chunk(b"IEND", b"")


def filtered(rows: Sequence[bytes], step: int) -> bytes:
    """Filter PNG rows with filters 0, 1, 2, 3, 4, 0, ... in turn."""
    done, above = [], bytes(len(rows[0]))
    for number, row in enumerate(rows):
        left = bytes(step) + row[:-step] if len(row) > step else bytes(len(row))
        corner = bytes(step) + above[:-step] if len(row) > step else bytes(len(row))
        kind = number % 5
        guesses = [_guess(kind, a, b, c) for a, b, c in zip(left, above, corner, strict=True)]
        done.append(bytes([kind, *((value - guess) & 255 for value, guess in zip(row, guesses, strict=True))]))
        above = row
    return b"".join(done)


def _guess(kind: int, a: int, b: int, c: int) -> int:
    if kind == 4:
        far = [abs(b - c), abs(a - c), abs(a + b - 2 * c)]
        return (a, b, c)[far.index(min(far))]
    return (0, a, b, (a + b) // 2)[kind]


def lzw(data: bytes) -> bytes:
    """Return TIFF's LZW code of bytes (most significant bit first, code width grows one entry early)."""
    bits: list[str] = []
    table: dict[bytes, int] = {}

    def width() -> int:
        return max(9, (len(table) + 258).bit_length())

    bits.append(f"{256:09b}")
    word = b""
    for byte in data:
        longer = word + bytes([byte])
        if len(longer) == 1 or longer in table:
            word = longer
            continue
        bits.append(f"{table[word] if len(word) > 1 else word[0]:0{width()}b}")
        table[longer] = len(table) + 258
        word = bytes([byte])
        if len(table) + 258 == 4093:
            bits.append(f"{256:012b}")
            table.clear()
    if word:
        bits.append(f"{table[word] if len(word) > 1 else word[0]:0{width()}b}")
        table[word + b"\0\0"] = 0
    bits.append(f"{257:0{width()}b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def packbits(data: bytes) -> bytes:
    """Return literal PackBits runs of at most 128 bytes."""
    return b"".join(bytes([len(part) - 1]) + part for part in (data[i : i + 128] for i in range(0, len(data), 128)))


_COMPRESS = {NONE: bytes, LZW: lzw, DEFLATE: zlib.compress, PACKBITS: packbits}


def directory(
    samples: np.ndarray,
    bits: int,
    *,
    sample_format: int = 1,
    photometric: int = 1,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int = 3,
    compression: int = NONE,
    predictor: int = 1,
    order: str = "<",
    extra_samples: Sequence[int] = (),
    colors: Sequence[int] = (),
    orientation: int = 1,
    subfile: int = 0,
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> tuple[dict[int, tuple[int, list[int]]], list[bytes]]:
    """Return tags (tag -> type and values) and compressed segments of one TIFF page of samples (H, W, S)."""
    height, width, count = samples.shape
    found: dict[int, tuple[int, list[int]]] = {
        254: (4, [subfile]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [compression]),
        262: (3, [photometric]),
        274: (3, [orientation]),
        277: (3, [count]),
        284: (3, [2 if planar else 1]),
        317: (3, [predictor]),
        339: (3, [sample_format] * count),
    }
    if extra_samples:
        found[338] = (3, list(extra_samples))
    if colors:
        found[320] = (3, list(colors))
    segments = []
    for plane in [samples[..., i : i + 1] for i in range(count)] if planar else [samples]:
        for part in _parts(plane, tile, rows_per_strip):
            segments.append(_COMPRESS[compression](_plain(part, bits, predictor, order)))
    if tile:
        found |= {322: (4, [tile[1]]), 323: (4, [tile[0]])}
    else:
        found[278] = (4, [rows_per_strip])
    return found | (tags or {}), segments


def _parts(plane: np.ndarray, tile: tuple[int, int] | None, rows: int) -> list[np.ndarray]:
    if tile is None:
        return [plane[top : top + rows] for top in range(0, len(plane), rows)]
    parts = []
    for top in range(0, plane.shape[0], tile[0]):
        for left in range(0, plane.shape[1], tile[1]):
            part = plane[top : top + tile[0], left : left + tile[1]]
            missing = ((0, tile[0] - part.shape[0]), (0, tile[1] - part.shape[1]), (0, 0))
            parts.append(np.pad(part, missing, mode="edge"))
    return parts


def _plain(part: np.ndarray, bits: int, predictor: int, order: str) -> bytes:
    if predictor == 1:
        return b"".join(pack_rows(part, bits, order))
    if predictor == 2:
        words = part.view(f"u{part.dtype.itemsize}")
        steps = words.copy()
        steps[:, 1:] -= words[:, :-1]
        return b"".join(pack_rows(steps, bits, order))
    rows = []
    for row in part.reshape(len(part), -1):
        planes = np.frombuffer(row.astype(row.dtype.newbyteorder(">")).tobytes(), np.uint8).reshape(len(row), -1).T
        flat = planes.ravel().reshape(-1, part.shape[2])
        steps = flat.copy()
        steps[1:] -= flat[:-1]
        rows.append(steps.tobytes())
    return b"".join(rows)


def tiff(*pages: tuple[dict[int, tuple[int, list[int]]], list[bytes]], order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF or BigTIFF of pages as `directory` gives them."""
    size, sizes = (8 if big else 4), {3: "H", 4: "I", 16: "Q"}
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    link = 8 if big else 4
    for tags, segments in pages:
        offsets = []
        for segment in segments:
            offsets.append(len(out))
            out += segment + b"\0" * (len(segment) % 2)
        where, counts = (324, 325) if 322 in tags else (273, 279)
        kind = 16 if big else 4
        own = dict(tags) | {where: (kind, offsets), counts: (kind, [len(segment) for segment in segments])}
        entries = b""
        for tag, (code, values) in sorted(own.items()):
            packed = struct.pack(f"{order}{len(values)}{sizes[code]}", *values)
            if len(packed) > size:
                place, packed_at = len(out), packed
                out += packed_at + b"\0" * (len(packed) % 2)
                packed = struct.pack(order + ("Q" if big else "I"), place)
            head = struct.pack(order + ("HHQ" if big else "HHI"), tag, code, len(values))
            entries += head + packed.ljust(size, b"\0")
        out[link : link + size] = struct.pack(order + ("Q" if big else "I"), len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(own)) + entries
        link = len(out)
        out += bytes(size)
    return bytes(out)


def bmp(indices: np.ndarray, depth: int, palette: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """Return a BMP, rows from the bottom: (H, W) palette indices of 1, 4, 8 bits, or (H, W, 3) RGB of 24 bits."""
    samples = indices[..., None] if indices.ndim == 2 else indices[..., ::-1]
    rows = [row + b"\0" * (-len(row) % 4) for row in pack_rows(samples, depth if depth < 8 else 8)]
    table = b"".join(bytes((blue, green, red, 0)) for red, green, blue in palette)
    start, data = 54 + len(table), b"".join(reversed(rows))
    height, width = indices.shape[:2]
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, 0, len(data), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + table + data


def gif(indices: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Return a GIF of one frame, (H, W) palette indices below 256."""
    table = b"".join(bytes(color) for color in palette).ljust(768, b"\0")
    size = struct.pack("<HH", indices.shape[1], indices.shape[0])
    codes = []
    for number, value in enumerate(indices.ravel().tolist()):
        codes += [256] * (number % 200 == 0) + [value]  # cleared so often that codes keep nine bits
    bits = "".join(f"{code:09b}"[::-1] for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    blocks = b"".join(bytes([len(part)]) + part for part in (data[i : i + 255] for i in range(0, len(data), 255)))
    return b"GIF89a" + size + b"\xf7\0\0" + table + b",\0\0\0\0" + size + b"\0\x08" + blocks + b"\0;"


def pnm(samples: np.ndarray, largest: int, *, plain: bool = False) -> bytes:
    """Return a PBM (largest 1, one channel), PGM or PPM of (H, W, C) samples, binary or as text."""
    height, width, channels = samples.shape
    kind = (3 if channels == 3 else 1 if largest == 1 else 2) + (0 if plain else 3)
    size = f"P{kind}\n# made by hand\n{width} {height}\n" + ("" if kind in (1, 4) else f"{largest}\n")
    if plain:
        rows = "\n".join(" ".join(str(value) for value in row.ravel().tolist()) for row in samples)
        return f"{size}{rows}\n".encode()
    bits = 1 if kind == 4 else 8 if largest < 256 else 16
    return size.encode() + b"".join(pack_rows(samples.astype(np.uint8 if bits <= 8 else np.uint16), bits))
