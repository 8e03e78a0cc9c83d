"""JPEG: which coding process a file uses and whether its scans are all there, before a decoder guesses.

libjpeg warns and goes on where data are missing, and calls arithmetic and Huffman codes by what a single byte says.
Read are the processes that everybody writes: baseline, extended and progressive Huffman coding of 8 bits.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from segatlas.data.formats.guards import NotReadError
from segatlas.data.formats.pixels import upright
from segatlas.data.formats.png import orientation_of
from segatlas.data.formats.stored import Stored

_PROCESSES = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical lossless",
    0xC9: "arithmetic",
    0xCA: "progressive arithmetic",
    0xCB: "lossless arithmetic",
    0xCD: "hierarchical arithmetic",
    0xCE: "hierarchical arithmetic",
    0xCF: "hierarchical arithmetic",
}
_READ = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_UNKNOWN = 99
_START, _END, _SCAN, _HUFFMAN, _QUANTISATION = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB


@dataclass(kw_only=True)
class Frame:
    """What the markers of a file say. bits: per component, the bit down to which each coefficient is known."""

    process: int = 0
    components: dict[int, list[int]] = field(default_factory=dict)
    has_end: bool = False


def is_jpeg(begin: bytes) -> bool:
    """Whether a file that begins so is a JPEG."""
    return begin[:3] == b"\xff\xd8\xff"


def read_jpeg(data: bytes, frame: Frame) -> Stored:
    """Decode a JPEG whose frame has been read, upright."""
    with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
        orientation = orientation_of(image)
        # OpenCV gives Pillow's pixels in two thirds of the time, but fills up what has no end, which Pillow refuses.
        is_plain = image.mode == "RGB" and frame.has_end
        samples = _decode_color(data) if is_plain else np.array(image)
        inks = image.mode == "CMYK"
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Stored(
        samples=upright(samples, orientation),
        color="cmyk" if inks else "rgb" if samples.shape[2] == 3 else "grey",
        largest=255,
        lossy=True,
        orientation=orientation,
    )


def _decode_color(data: bytes) -> np.ndarray:
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if array is None:
        raise ValueError("no JPEG decoder accepts it")
    return array


def read_frame(data: bytes) -> Frame:
    """Return what the markers say. ValueError for other coding processes and for missing scans."""
    frame = _walk(data)
    if not frame.process:
        raise ValueError("it has no frame header")
    missing = [name for name, known in frame.components.items() if any(known)]
    if missing:
        raise ValueError(f"truncated: scans of {len(missing)} of its {len(frame.components)} components are missing")
    return frame


def _walk(data: bytes) -> Frame:
    """Walk the markers up to the end of the first image."""
    frame, place, in_scan = Frame(), 2, False
    while True:
        match = _NEXT_MARKER.search(data, place)
        if match is None:
            return frame
        if not in_scan and match.start() > place:
            raise ValueError(f"{match.start() - place} bytes between its segments belong to none")
        marker, place = data[match.end() - 1], match.end()
        in_scan = marker == _SCAN
        if marker == _END:
            frame.has_end = True
            return frame
        if marker in (_START, 0x01):
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        content = data[place + 2 : place + length]
        if length < 2 or place + length > len(data):
            raise ValueError("truncated in its headers")
        if 0xC0 <= marker <= 0xCF and marker not in (_HUFFMAN, 0xC8, 0xCC):
            _read_process(frame, marker, content)
        elif marker == _SCAN:
            _read_scan(frame, content)
        place += length


def _read_process(frame: Frame, marker: int, content: bytes) -> None:
    if marker not in _READ:
        raise NotReadError(
            f"a JPEG of the {_PROCESSES[marker]} process, which is not read; save it as ordinary JPEG or as PNG"
        )
    if frame.process:
        raise ValueError("two frame headers")
    if len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise ValueError("its frame header is damaged")
    if content[0] != 8:
        raise NotReadError(f"a JPEG of {content[0]} bits a channel is not read; save it as a 16-bit PNG or TIFF")
    frame.process = marker
    frame.components = {content[6 + 3 * i]: [_UNKNOWN] * 64 for i in range(content[5])}
    if len(frame.components) != content[5]:
        raise ValueError("two components of one name")


def _read_scan(frame: Frame, content: bytes) -> None:
    if not content or len(content) != 4 + 2 * content[0]:
        raise ValueError("a scan header is damaged")
    first, last, before, low = content[-3], content[-2], content[-1] >> 4, content[-1] & 15
    is_progressive = frame.process == 0xC2
    is_valid = (first == last == 0 or 0 < first <= last <= 63) if is_progressive else (first, last, low) == (0, 63, 0)
    if not is_valid:
        raise ValueError("a scan header that its coding process does not know")
    for name in content[1 : 1 + 2 * content[0] : 2]:
        if name not in frame.components:
            raise ValueError("a scan of a component that the frame header does not name")
        known = frame.components[name]
        if not is_progressive:
            known[:] = [0] * 64
            continue
        if any(bit != (before or _UNKNOWN) for bit in known[first : last + 1]):
            raise ValueError("truncated: a scan refines what no scan has given")
        known[first : last + 1] = [low] * (last + 1 - first)
