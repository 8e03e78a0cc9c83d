"""PBM, PGM and PPM: stored numbers as they are, whatever the largest value; Pillow would stretch them."""

from __future__ import annotations

import re

import numpy as np

from segatlas.data.formats.stored import Stored

_HEADER = re.compile(rb"P([1-6])((?:\s|#[^\n\r]*[\n\r])+)")
_NUMBER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,9})(?=[\s#])")
_COMMENT = re.compile(rb"#[^\n\r]*")


MOST_HEADER_BYTES = 65536
"""Of a header, comments included; it lets headers be read without the file."""


def is_pnm(begin: bytes) -> bool:
    """Whether a file that begins so is a PBM, PGM or PPM."""
    return begin[:1] == b"P" and begin[1:2] in b"123456" and begin[2:3].isspace() | (begin[2:3] == b"#")


def pnm_header(data: bytes) -> tuple[int, int, int, int, int]:
    """Return (kind 1..6, width, height, largest value, where the pixels begin) of a file or the begin of one.

    Raises:
        ValueError: it is damaged, or longer than MOST_HEADER_BYTES.
    """
    is_longer, data = len(data) >= MOST_HEADER_BYTES, data[:MOST_HEADER_BYTES]
    damaged = f"its header is damaged{f', or longer than {MOST_HEADER_BYTES} bytes' * is_longer}"
    match = _HEADER.match(data)
    if match is None:
        raise ValueError(damaged)
    kind, place, numbers = int(match[1]), match.end(), []
    for _ in range(2 if kind in (1, 4) else 3):
        number = _NUMBER.match(data, place)
        if number is None:
            raise ValueError(damaged)
        numbers.append(int(number[1]))
        place = number.end()
    if not data[place : place + 1].isspace() and kind > 3:
        raise ValueError(damaged)
    width, height, largest = (*numbers, 1)[:3]
    if not (width and height and 1 <= largest <= 65535):
        raise ValueError(f"a header that PNM does not know: {width} x {height}, largest value {largest}")
    return kind, width, height, largest, place + 1


def read_pnm(data: bytes) -> Stored:
    """Decode the samples as they are stored. ValueError where some are missing or above the largest value."""
    kind, width, height, largest, place = pnm_header(data)
    channels = 3 if kind in (3, 6) else 1
    count = height * width * channels
    samples = _plain(data[place:], kind, count) if kind <= 3 else _raw(data, place, kind, width, height, count, largest)
    if samples.size < count:
        raise ValueError(f"truncated: {samples.size} of {count} values")
    samples = samples[:count].reshape(height, width, channels)
    if samples.max() > largest:
        raise ValueError(f"it holds {samples.max()}, above the largest value that it names, {largest}")
    return Stored(
        samples=samples.astype(np.uint8 if largest < 256 else np.uint16),
        color="rgb" if channels == 3 else "grey",
        largest=largest,
        inverted=kind in (1, 4),  # 1 is black
    )


def _plain(text: bytes, kind: int, count: int) -> np.ndarray:
    words = _COMMENT.sub(b" ", text)
    if kind == 1:
        return np.frombuffer(b"".join(words.split()), np.uint8)[:count] - np.uint8(ord("0"))
    numbers = words.split(maxsplit=count)[:count]
    if len(numbers) == count and words.endswith(numbers[-1]):
        raise ValueError("truncated: nothing says that its last value ends")
    if not all(number.isdigit() and len(number) <= 9 for number in numbers):
        raise ValueError("a value is no number")
    return np.array(numbers, np.int64) if numbers else np.zeros(0, np.int64)


def _raw(data: bytes, place: int, kind: int, width: int, height: int, count: int, largest: int) -> np.ndarray:
    if kind == 4:
        row = -(-width // 8)
        packed = np.frombuffer(data, np.uint8, offset=min(place, len(data)))[: row * height]
        if packed.size < row * height:
            return np.zeros(0, np.uint8)
        return np.unpackbits(packed.reshape(height, row), axis=1)[:, :width].ravel()
    size = 1 if largest < 256 else 2
    whole = data[place : place + count * size]
    return np.frombuffer(whole[: len(whole) // size * size], ">u2" if size == 2 else np.uint8)
