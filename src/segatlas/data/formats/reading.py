"""From the bytes of an image file to its stored samples: the one place where the kind of file is decided.

The content decides, not the ending. Kinds that are not read are refused by name.
"""

from __future__ import annotations

from pathlib import Path

from segatlas.data.formats.bmp import is_plain_bmp, read_bmp
from segatlas.data.formats.guards import NotReadError, check_file, check_pixels, decoding, open_picture, read_bytes
from segatlas.data.formats.jpeg import is_jpeg, read_jpeg
from segatlas.data.formats.png import is_png, orientation_of, read_chunks, read_png
from segatlas.data.formats.pnm import is_pnm, pnm_header, read_pnm
from segatlas.data.formats.simple import FORMATS, read_simple
from segatlas.data.formats.stored import Stored
from segatlas.data.formats.tiff import is_tiff, open_tiff, read_tiff


def read_stored(data: bytes, name: str | Path, max_pixels: int | None = None) -> Stored:
    """Decode the stored samples of an image file, upright.

    Args:
        data: content of the file.
        name: what messages call it.
        max_pixels: refuse larger ones, before anything is allocated; default SEGATLAS_MAX_PIXELS, else MAX_PIXELS.

    Raises:
        DataError: damaged, incomplete, too large, or of a kind that is not read; it says which.
    """
    if is_tiff(data):
        with open_tiff(data, name, max_pixels) as (tiff, layout):
            return read_tiff(tiff, layout, data)
    with decoding(name):
        if is_png(data):
            png = read_chunks(data)
            check_pixels(png.height, png.width, png.samples, name, max_pixels)
            return read_png(png)
        if is_pnm(data):
            kind, width, height, *_ = pnm_header(data)
            check_pixels(height, width, 3 if kind in (3, 6) else 1, name, max_pixels)
            return read_pnm(data)
        with open_picture(data, name, max_pixels) as picture:
            if is_jpeg(data):
                return read_jpeg(data)
            if is_plain_bmp(data):
                return read_bmp(data)
            if picture.format not in FORMATS:
                raise NotReadError(f"is a {picture.format} file, which is not read; save it as PNG or TIFF")
            return read_simple(picture, data)


def read_shape(path: str | Path, max_pixels: int | None = None) -> tuple[int, int, int]:
    """Return the upright height and width of an image file, and its channels without alpha, from the headers alone.

    Raises:
        DataError: as `read_stored`, where the headers tell.
    """
    path = check_file(path)
    with decoding(path):
        with path.open("rb") as stream:
            begin = stream.read(8)
        if is_tiff(begin):
            with open_tiff(path, path, max_pixels) as (_, layout):
                return (*layout.size, layout.channels)
        data = read_bytes(path)
        if is_png(data):
            png = read_chunks(data)
            check_pixels(png.height, png.width, png.samples, path, max_pixels)
            return _turned(png.height, png.width, png.channels, png.orientation)
        if is_pnm(data):
            kind, width, height, *_ = pnm_header(data)
            check_pixels(height, width, 3 if kind in (3, 6) else 1, path, max_pixels)
            return height, width, 3 if kind in (3, 6) else 1
        with open_picture(data, path, max_pixels) as picture:
            channels = 1 if picture.mode in ("1", "L", "LA") else 3
            return _turned(picture.height, picture.width, channels, orientation_of(picture))


def _turned(height: int, width: int, channels: int, orientation: int) -> tuple[int, int, int]:
    return (width, height, channels) if orientation >= 5 else (height, width, channels)
