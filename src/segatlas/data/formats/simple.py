"""GIF, WebP and compressed BMP through Pillow: the samples as they are stored."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
from PIL import Image

from segatlas.data.formats.guards import NotReadError
from segatlas.data.formats.pixels import upright
from segatlas.data.formats.png import orientation_of
from segatlas.data.formats.stored import Stored

FORMATS = ("BMP", "DIB", "GIF", "WEBP")
_FRAME, _FRAME_HEADER = b"ANMF", 16  # of an animation: chunks of pixels follow its header


def read_simple(image: Image.Image, data: bytes) -> Stored:
    """Decode an opened image of one of FORMATS, upright. ValueError where it is animated or not whole."""
    if getattr(image, "n_frames", 1) > 1:
        raise NotReadError(f"an animation of {image.n_frames} images; save the one that is meant")  # type: ignore[attr-defined]
    _check_size(image, data)
    largest, orientation, palette = _largest(image, data), orientation_of(image), None
    if image.mode in ("P", "PA"):
        image.load()
        palette = _palette(image)
    array = np.array(image)
    array = array.astype(np.uint8) if array.dtype == np.bool_ else array
    array = array[..., None] if array.ndim == 2 else array
    if image.mode not in ("1", "L", "P", "LA", "PA", "RGB", "RGBA"):
        raise NotReadError(f"samples of the kind {image.mode} are not read")
    return Stored(
        samples=upright(array, orientation),
        color="palette" if palette is not None else "grey" if array.shape[2] <= 2 else "rgb",
        largest=largest,
        alpha=array.shape[2] in (2, 4),
        palette=palette,
        lossy=is_lossy_webp(io.BytesIO(data)),
        orientation=orientation,
    )


def _palette(image: Image.Image) -> np.ndarray:
    colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    table = np.full((256, 4), 255, np.uint8)
    table[:, :3] = 0
    table[: len(colors), :3] = colors
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent < 256:
        table[transparent, 3] = 0
    return table


def _largest(image: Image.Image, data: bytes) -> int:
    if image.mode == "1":
        return 1
    # Two bytes a pixel are 5 or 6 bits a channel, which Pillow spreads over 0..255.
    is_bmp16 = image.format == "BMP" and int.from_bytes(data[28:30], "little") == 16
    return 31 if is_bmp16 else 255


def _check_size(image: Image.Image, data: bytes) -> None:
    """Look for the ends of a WebP and of a BMP of run lengths: their decoders forgive a missing one."""
    if image.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError("truncated")
    if image.format == "BMP" and int.from_bytes(data[30:34], "little") in (1, 2) and b"\0\x01" not in data[-4:]:
        raise ValueError("truncated: the end of its run lengths is missing")


def is_lossy_webp(stream: BinaryIO, start: int = 0) -> bool:
    """Whether a WebP with a chunk of lossy pixels begins at `start`. Reads the heads of its chunks only."""
    stream.seek(start)
    begin = stream.read(12)
    if begin[:4] != b"RIFF" or begin[8:] != b"WEBP":
        return False
    end = start + 8 + int.from_bytes(begin[4:8], "little")
    while stream.tell() < end and len(head := stream.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind == b"VP8 ":
            return True
        stream.seek(_FRAME_HEADER if kind == _FRAME else size + size % 2, os.SEEK_CUR)
    return False
