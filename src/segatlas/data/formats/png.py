"""PNG: every chunk and checksum is looked at, the pixel data must be complete, and samples come as they are stored.

Both decoders that we use, OpenCV and Pillow, stay silent where rows are missing, so the pixel data are inflated here
and counted. The decoders then get a copy that holds nothing but header and pixel data: transparency, gamma or animation
chunks cannot change the samples.
"""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from segatlas.data.formats.pixels import upright
from segatlas.data.formats.stored import Color, Stored

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COLORS: dict[int, Color] = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}
_STEP = 2**14
"""Compressed bytes that are inflated at a time."""
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of the seven passes of an interlaced file: first row, first column, step of rows, step of columns."""
_ORIENTATION = 0x0112
_EXIF_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Png:
    """A PNG file whose chunks are in order: its header, and where the parts of the file are.

    width, height: as stored, before orientation. color_type: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA.
    orientation: 1..8, of EXIF data anywhere in the file. palette: (N, 4) uint8 RGBA. pixels: the compressed rows.
    """

    width: int
    height: int
    depth: int
    color_type: int
    interlaced: bool
    orientation: int
    palette: np.ndarray | None
    pixels: bytes
    head: bytes

    @property
    def samples(self) -> int:
        """Samples of a pixel, alpha counted."""
        return _SAMPLES[self.color_type]

    @property
    def channels(self) -> int:
        """Channels of the image without alpha."""
        return 1 if self.color_type in (0, 4) else 3


def is_png(begin: bytes) -> bool:
    """Whether a file that begins so is a PNG."""
    return begin[:8] == SIGNATURE


def read_chunks(data: bytes) -> Png:
    """Check chunks, checksums and header of a PNG. ValueError saying what is wrong."""
    return _parsed(_chunks(io.BytesIO(data), len(data), with_pixels=True))


def read_header_chunks(path: Path) -> Png:
    """Check the chunks of a PNG file as `read_chunks` does, without reading its pixels: `pixels` is empty."""
    with path.open("rb") as stream:
        return _parsed(_chunks(stream, os.fstat(stream.fileno()).st_size, with_pixels=False))


def _parsed(chunks: list[tuple[bytes, bytes]]) -> Png:
    kinds = [kind for kind, _ in chunks]
    if not kinds or kinds[0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ValueError("the header chunk is missing")
    width, height = (int.from_bytes(chunks[0][1][i : i + 4], "big") for i in (0, 4))
    depth, color_type, compression, filtering, interlace = chunks[0][1][8:]
    if depth not in _DEPTHS.get(color_type, ()) or compression or filtering or interlace > 1 or not width * height:
        raise ValueError(f"a header that PNG does not know: depth {depth}, colour type {color_type}")
    first = kinds.index(b"IDAT") if b"IDAT" in kinds else len(kinds)
    count = kinds.count(b"IDAT")
    if kinds[first : first + count] != [b"IDAT"] * count or count == 0:
        raise ValueError("the pixel data are missing, or in pieces that do not follow one another")
    palettes = [content for kind, content in chunks[:first] if kind == b"PLTE"]
    if color_type == 3 and (len(palettes) != 1 or len(palettes[0]) % 3 or not 3 <= len(palettes[0]) <= 768):
        raise ValueError("its palette is missing or damaged")
    if color_type in (0, 4) and b"PLTE" in kinds:
        raise ValueError("a palette in a grey file: header and palette contradict each other")
    transparent = next((content for kind, content in chunks[:first] if kind == b"tRNS"), b"")
    return Png(
        width=width,
        height=height,
        depth=depth,
        color_type=color_type,
        interlaced=bool(interlace),
        orientation=_orientation(chunks),
        palette=_palette(palettes[0], transparent) if color_type == 3 else None,
        pixels=b"".join(content for kind, content in chunks if kind == b"IDAT"),
        head=_chunk(b"IHDR", chunks[0][1]) + (_chunk(b"PLTE", palettes[0]) if color_type == 3 else b""),
    )


def check_rows(png: Png) -> None:
    """Inflate the pixel data: the filtered rows are neither more nor fewer bytes than the header promises.

    They are counted, not kept: in pieces they stay in the processor's cache.

    Raises ValueError otherwise.
    """
    expected = sum(height * (1 + _row_bytes(png, width)) for height, width in _pass_sizes(png) if height * width)
    inflate, pixels, count = zlib.decompressobj(), memoryview(png.pixels), 0
    try:
        for start in range(0, len(pixels), _STEP):
            # At least one byte is asked for: after the last row this looks at the checksum, and finds what is too much.
            count += len(inflate.decompress(pixels[start : start + _STEP], expected + 1 - count))
            if count > expected or inflate.eof:
                break
    except zlib.error as error:
        raise ValueError(f"its pixel data are damaged: {error}") from error
    if count < expected:
        raise ValueError(f"its pixel data are incomplete: {count} of {expected} bytes")
    if count > expected:
        raise ValueError(f"it holds more pixel data than its header says ({expected} bytes)")


def read_png(png: Png) -> Stored:
    """Decode the samples of a PNG as they are stored, upright. ValueError where the pixel data are not whole."""
    check_rows(png)
    samples = _decode(png)
    if samples.shape[:2] != (png.height, png.width):
        raise ValueError(f"decoded to {samples.shape[1]} x {samples.shape[0]} pixels")
    return Stored(
        samples=upright(samples, png.orientation),
        color=_COLORS[png.color_type],
        largest=2**png.depth - 1,
        alpha=png.color_type in (4, 6),
        palette=png.palette,
        orientation=png.orientation,
    )


def _decode(png: Png) -> np.ndarray:
    data = b"".join((SIGNATURE, png.head, _chunk(b"IDAT", png.pixels), _END))
    if png.depth == 16 and png.color_type != 0:  # Pillow would cut it down to 8 bits
        return _decode_deep(data, png)
    if png.color_type == 2:
        return _opencv(data, color=True)
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        array = np.array(image)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if png.color_type == 0 and png.depth in (2, 4):  # Pillow spreads them over 0..255
        array //= 255 // (2**png.depth - 1)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array[..., None] if array.ndim == 2 else array


def _decode_deep(data: bytes, png: Png) -> np.ndarray:
    array = _opencv(data, color=False)
    if png.color_type == 4:  # OpenCV spreads grey and alpha to four channels
        return array[..., [0, 3]]
    return array[..., [2, 1, 0, 3][: array.shape[2]]]


def _opencv(data: bytes, *, color: bool) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB if color else cv2.IMREAD_UNCHANGED
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        raise ValueError("its pixel data are damaged")
    return array


def _chunks(stream: BinaryIO, size: int, *, with_pixels: bool) -> list[tuple[bytes, bytes]]:
    """Return (kind, content) of all chunks. A missing end chunk alone is forgiven: no pixel hangs on it."""
    found: list[tuple[bytes, bytes]] = []
    stream.seek(len(SIGNATURE))
    while True:
        head = stream.read(len(_END))
        if _END.startswith(head):
            return found
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        stream.seek(8 - len(head), os.SEEK_CUR)
        if stream.tell() + length + 4 > size:
            raise ValueError(f"truncated in the chunk {kind!r}")
        if kind == b"IDAT" and not with_pixels:
            stream.seek(length + 4, os.SEEK_CUR)
            found.append((kind, b""))
            continue
        content = stream.read(length)
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(stream.read(4), "big"):
            raise ValueError(f"the checksum of the chunk {kind!r} is wrong")
        found.append((kind, content))


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((len(content).to_bytes(4, "big"), kind, content, check.to_bytes(4, "big")))


def _pass_sizes(png: Png) -> list[tuple[int, int]]:
    """Return (rows, columns) of each pass; a file that is not interlaced has one."""
    if not png.interlaced:
        return [(png.height, png.width)]
    return [
        (max(0, -(-(png.height - top) // down)), max(0, -(-(png.width - left) // across)))
        for top, left, down, across in _PASSES
    ]


def _row_bytes(png: Png, width: int) -> int:
    return -(-width * png.depth * png.samples // 8)


def _palette(colors: bytes, transparent: bytes) -> np.ndarray:
    table = np.full((len(colors) // 3, 4), 255, np.uint8)
    table[:, :3] = np.frombuffer(colors, np.uint8).reshape(-1, 3)
    alpha = np.frombuffer(transparent, np.uint8)[: len(table)]
    table[: len(alpha), 3] = alpha
    return table


def _orientation(chunks: list[tuple[bytes, bytes]]) -> int:
    """Return the EXIF orientation, read by Pillow from a file of one pixel that holds the metadata alone."""
    facts = [c for c in chunks if c[0] == b"eXIf" or (c[0][1:] in (b"EXt", b"TXt") and c[1].startswith(_EXIF_KEYWORDS))]
    if not facts:
        return 1
    pixel = _chunk(b"IHDR", bytes((0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0)))
    parts = (SIGNATURE, pixel, *(_chunk(*fact) for fact in facts), _chunk(b"IDAT", zlib.compress(b"\0\0")), _END)
    with Image.open(io.BytesIO(b"".join(parts)), formats=["PNG"]) as image:
        return orientation_of(image)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1..8; 1 where it says none that exists."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
