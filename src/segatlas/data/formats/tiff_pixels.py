"""The samples of one TIFF page as they are stored: strips and tiles, 1 to 64 bits, predictors, planes.

Every strip or tile must be there and whole. Compressed bytes are undone by zlib or by Pillow's libtiff, which is handed
a small TIFF of plain bytes around them: it then knows nothing of channels, bit depths and predictors, and cannot
misunderstand them.

Letters: H, W image, S samples of a pixel, n rows of strips or tiles below one another.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from segatlas.data.formats.guards import NotReadError, open_image

if TYPE_CHECKING:
    from tifffile import TiffPage

NONE, DEFLATE, OLD_DEFLATE, LZW, PACKBITS, LZMA, ZSTD = 1, 8, 32946, 5, 32773, 34925, 50000
FAX = (2, 3, 4)
CODECS = (NONE, DEFLATE, OLD_DEFLATE, LZW, PACKBITS, LZMA, ZSTD, *FAX)
"""Compressions that are undone here."""

_WITH_PREDICTOR = (DEFLATE, OLD_DEFLATE, LZW, LZMA, ZSTD)
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_NAMES = {"u": "unsigned", "i": "signed", "f": "float"}
_SIZES = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_FAX_OPTIONS, _FILL_ORDER = (292, 293), 266


def sample_type(page: TiffPage) -> np.dtype[np.generic]:
    """Return the type that holds a sample. ValueError for complex numbers, and depths that nobody reads."""
    bits, kind = page.bitspersample, _KINDS.get(int(page.sampleformat))
    if kind is None:
        raise NotReadError("its samples are complex numbers, which are no image; save magnitude or parts as channels")
    if not isinstance(bits, int):
        raise NotReadError("its samples have different numbers of bits")
    if bits in _SIZES[kind]:
        return np.dtype(f"{kind}{bits // 8}")
    if kind != "u" or not 1 <= bits < 16:
        raise NotReadError(f"samples of {bits} bits ({_NAMES[kind]}) are not read")
    return np.dtype(np.uint8 if bits < 8 else np.uint16)


def page_samples(page: TiffPage, data: bytes) -> np.ndarray:
    """Return the stored samples of a page, (H, W, S). ValueError where a strip or tile is missing or too short."""
    dtype, count = sample_type(page), page.samplesperpixel
    if page.imagedepth > 1:
        raise NotReadError("a volume, not an image")
    planes, together = (count, 1) if page.planarconfig == 2 and count > 1 else (1, count)
    width, rows = _segment_size(page)
    across, down = -(-page.imagewidth // width), -(-page.imagelength // rows)
    stored_parts = segments(page, data)
    row_bytes = -(-width * together * page.bitspersample // 8)
    heights = [rows] * across * down
    if not page.is_tiled:
        heights[-1] = page.imagelength - rows * (down - 1)
    parts = []
    for plane in range(planes):
        own = stored_parts[plane * across * down : (plane + 1) * across * down]
        stored = _plain_rows(page, own, heights, row_bytes)
        values = _values(page, stored, dtype, width, together)
        if page.is_tiled:
            values = values.reshape(down, across, rows, width, together).swapaxes(1, 2)
            values = values.reshape(down * rows, across * width, together)
        parts.append(values[: page.imagelength, : page.imagewidth])
    return parts[0] if planes == 1 else np.concatenate(parts, axis=2)


def _segment_size(page: TiffPage) -> tuple[int, int]:
    """Return columns and rows of a strip or tile."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    rows = page.rowsperstrip or page.imagelength
    return page.imagewidth, min(rows, page.imagelength)


def segments(page: TiffPage, data: bytes) -> list[bytes]:
    """Return the strips or tiles of a page, compressed as they are. ValueError where one is missing or cut off."""
    width, rows = _segment_size(page)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    count = planes * -(-page.imagewidth // width) * -(-page.imagelength // rows)
    kind = "tile" if page.is_tiled else "strip"
    offsets, sizes = page.dataoffsets, page.databytecounts
    if len(offsets) != count or len(sizes) < count:
        raise ValueError(f"{min(len(offsets), len(sizes))} {kind}s, expected {count}")
    found = []
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=False)):
        if size == 0:
            raise ValueError(f"{kind} {number} of {count} is missing")
        if offset + size > len(data):
            raise ValueError(f"truncated: {kind} {number} of {count} ends behind the file")
        found.append(data[offset : offset + size])
    return found


def _plain_rows(page: TiffPage, segments: list[bytes], heights: list[int], row_bytes: int) -> np.ndarray:
    """Return the uncompressed bytes of the strips or tiles of a plane, (n, row_bytes) uint8."""
    codec = int(page.compression)
    if codec in (NONE, DEFLATE, OLD_DEFLATE):
        whole = []
        for number, (segment, height) in enumerate(zip(segments, heights, strict=True)):
            plain = segment if codec == NONE else _inflated(segment, height * row_bytes)
            if len(plain) < height * row_bytes:
                raise ValueError(f"part {number} holds {len(plain)} of {height * row_bytes} bytes")
            whole.append(plain[: height * row_bytes])
        stored = np.frombuffer(b"".join(whole), np.uint8).reshape(sum(heights), row_bytes)
        return _reversed_bits(stored) if page.fillorder == 2 else stored
    width = _segment_size(page)[0] if codec in FAX else row_bytes
    file = _plain_tiff(page, segments, heights, width)
    with open_image(file, "its compressed data", max_pixels=2**62) as image:
        stored = np.array(image)
    return np.packbits(stored, axis=1) if codec in FAX else stored


def _inflated(segment: bytes, size: int) -> bytes:
    """Undo Deflate to `size` bytes, its checksum included."""
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(segment, size)
        more = inflate.decompress(inflate.unconsumed_tail, size + 1)
    except zlib.error as error:
        raise ValueError(f"its pixel data are damaged: {error}") from error
    if not inflate.eof and not more:
        raise ValueError("its pixel data are truncated")
    return plain


def _plain_tiff(page: TiffPage, segments: list[bytes], heights: list[int], width: int) -> bytes:
    """Return a TIFF of bytes (or of bits, for fax codes) that holds the same compressed segments as strips."""
    count = len(segments)
    tags = {256: width, 257: sum(heights), 258: 8, 259: int(page.compression), 262: 1, 277: 1, 278: heights[0]}
    tags |= {_FILL_ORDER: int(page.fillorder)}
    if tags[259] in FAX:
        tags[258] = 1
        tags |= {tag: int(page.tags[tag].value) for tag in _FAX_OPTIONS if tag in page.tags}
    lists = 8 + 2 + 12 * (len(tags) + 2) + 4
    start = lists + 8 * count
    offsets = start + np.cumsum([0, *(len(segment) for segment in segments[:-1])])
    sizes = [len(segment) for segment in segments]
    entries = [(tag, 1, value) for tag, value in tags.items()]
    entries += [(273, count, lists if count > 1 else start), (279, count, lists + 4 * count if count > 1 else sizes[0])]
    directory = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in sorted(entries))
    head = struct.pack("<4sIH", b"II*\0", 8, len(entries)) + directory + struct.pack("<I", 0)
    return b"".join((head, struct.pack(f"<{2 * count}I", *offsets.tolist(), *sizes), *segments))


def _values(page: TiffPage, stored: np.ndarray, dtype: np.dtype[np.generic], width: int, together: int) -> np.ndarray:
    """Turn bytes (n, row_bytes) into samples (n, width, together) in native byte order, predictors undone."""
    predictor = int(page.predictor) if int(page.compression) in _WITH_PREDICTOR else 1
    bits, count, size = page.bitspersample, width * together, dtype.itemsize
    if predictor == 3:
        if dtype.kind != "f":
            raise ValueError("a predictor for floats on integers")
        return _floats_of_differences(stored, count, size, together).reshape(-1, width, together)
    if predictor not in (1, 2):
        raise NotReadError(f"predictor {predictor} is not read")
    if bits in (8, 16, 32, 64):
        order = ">" if page.parent.byteorder == ">" else "<"
        words = np.ascontiguousarray(stored).view(f"{order}u{size}").astype(f"u{size}", copy=False)
    elif predictor == 2:
        raise NotReadError(f"a predictor on samples of {bits} bits is not read")
    else:
        words = _unpacked(stored, bits, count).astype(dtype, copy=False)
    words = words.reshape(len(stored), width, together)
    if predictor == 2:
        words = np.cumsum(words, axis=1, dtype=words.dtype)
    return words.view(dtype)


def _unpacked(stored: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first `count` numbers of `bits` bits of each row, most significant bit first."""
    flat = np.unpackbits(stored, axis=1)[:, : count * bits].reshape(len(stored), count, bits)
    if bits == 1:
        return flat[..., 0]
    values = np.zeros(flat.shape[:2], np.uint16)
    for bit in range(bits):
        values = values << 1 | flat[..., bit]
    return values


def _floats_of_differences(stored: np.ndarray, count: int, size: int, together: int) -> np.ndarray:
    """Undo the predictor for floats: differences of bytes, the bytes of equal weight side by side."""
    steps = stored.reshape(len(stored), -1, together)
    plain = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(len(stored), size, count)
    bytes_of_value = np.ascontiguousarray(plain.transpose(0, 2, 1))
    return bytes_of_value.view(f">f{size}")[..., 0].astype(f"f{size}")


def _reversed_bits(stored: np.ndarray) -> np.ndarray:
    table = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
    reverse: np.ndarray = table[stored]
    return reverse
