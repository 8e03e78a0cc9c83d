"""Read pictures of any common kind into one form: (H, W, C) arrays of uint8, uint16 or float32, RGB order.

What is done to every picture:

- the EXIF orientation is applied, so that the array is upright;
- grey pictures have one channel, palette and CMYK pictures become RGB, 1-bit pictures become 0 / 255;
- alpha is not a band: it is dropped, unless exactly the channels with alpha are asked for (4 for RGBA, 2 for grey
  with alpha);
- 8 bits stay uint8, 16 bits stay uint16, everything else becomes float32;
- the bands of a TIFF (one page with N samples, or N pages of one band) are the channels.

A picture that cannot be read raises DataError naming the file and the fault. Its size is known before its pixels are
allocated: more than `MAX_PIXELS` are refused (environment variable SEGATLAS_MAX_PIXELS or `max_pixels=` raise that).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from segatlas.data.formats.guards import IMAGE_ENDINGS, MAX_PIXELS, check_file, decoding, open_picture, read_bytes
from segatlas.data.formats.pixels import fit_channels, plain_type, upright
from segatlas.data.formats.tiff import is_tiff, open_tiff, pillow_channels, pillow_reads, tiff_array, tiff_shape
from segatlas.errors import DataError

__all__ = [
    "IMAGE_ENDINGS",
    "MAX_PIXELS",
    "Header",
    "as_image",
    "decode_image",
    "image_size",
    "read_header",
    "read_image",
]

_ORIENTATION = 0x0112


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture says about itself before decoding: upright size in pixels, and channels without alpha."""

    height: int
    width: int
    channels: int


def read_image(path: str | Path, channels: int | None = None, *, max_pixels: int | None = None) -> np.ndarray:
    """Read a picture file.

    Args:
        path: the file; its ending must be one of IMAGE_ENDINGS, its content decides how it is read.
        channels: bands wanted, see `fit_channels`; default: those of the file, without alpha.
        max_pixels: refuse larger pictures; default SEGATLAS_MAX_PIXELS, else MAX_PIXELS.

    Returns:
        (H, W, C) uint8, uint16 or float32, upright, RGB order.

    Raises:
        DataError: missing, empty, truncated, not a picture, too large, or of another number of channels.
    """
    return decode_image(read_bytes(path), channels, name=path, max_pixels=max_pixels)


def decode_image(
    data: bytes, channels: int | None = None, *, name: str | Path = "picture", max_pixels: int | None = None
) -> np.ndarray:
    """Decode the bytes of a picture file; as `read_image`, with `name` in messages."""
    decode = _decode_tiff if is_tiff(data) else _decode_common
    return fit_channels(decode(data, channels, name, max_pixels), channels, name)


def as_image(source: Any, channels: int | None = None, *, name: str | Path = "picture") -> np.ndarray:
    """Turn what a caller may hold into (H, W, C).

    Args:
        source: str or Path of a file, bytes of a file, PIL picture, or array (H, W) or (H, W, C) of uint8, uint16,
            float or bool, RGB order.
        channels: bands wanted, see `fit_channels`.
        name: what messages call the picture, where it is not a file.

    Raises:
        DataError: as `read_image`; also an empty array, or one of another shape or type.
    """
    if isinstance(source, str | Path):
        return read_image(source, channels)
    if isinstance(source, bytes):
        return decode_image(source, channels, name=name)
    if isinstance(source, Image.Image):
        with decoding(name):
            return fit_channels(_pillow_array(source, channels), channels, name)
    if isinstance(source, np.ndarray):
        return fit_channels(_check_array(source, name), channels, name)
    raise DataError(f"a {type(source).__name__} is not a picture; expected a path, bytes, PIL picture or array", name)


def read_header(path: str | Path, *, max_pixels: int | None = None) -> Header:
    """Return a picture's upright size and channels without decoding its pixels. Raises DataError as `read_image`."""
    path = check_file(path)
    with path.open("rb") as stream:
        begin = stream.read(4)
    if is_tiff(begin):
        with open_tiff(path, path, max_pixels) as tiff:
            height, width, bands = tiff_shape(tiff)
            channels = pillow_channels(tiff) if pillow_reads(tiff) else bands
        return Header(height=height, width=width, channels=channels)
    with open_picture(path, path, max_pixels) as picture, decoding(path):
        width, height = picture.size
        if _orientation(picture) >= 5:
            width, height = height, width
        grey = picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")
        return Header(height=height, width=width, channels=1 if grey else 3)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return a picture's upright (height, width) from its header."""
    header = read_header(path)
    return header.height, header.width


def _decode_tiff(data: bytes, channels: int | None, name: str | Path, max_pixels: int | None) -> np.ndarray:
    with open_tiff(data, name, max_pixels) as tiff:
        if pillow_reads(tiff):
            with open_picture(data, name, max_pixels) as picture:
                return _pillow_array(picture, channels)
        return plain_type(tiff_array(tiff, data))


def _decode_common(data: bytes, channels: int | None, name: str | Path, max_pixels: int | None) -> np.ndarray:
    with open_picture(data, name, max_pixels) as picture, decoding(name):
        if picture.format == "JPEG" and picture.mode == "RGB" and _jpeg_is_complete(data):
            return upright(_decode_jpeg(data), _orientation(picture))
        if picture.format == "PNG" and picture.mode == "RGB" and data[24] == 8 and _png_is_whole(data):
            array = _decode_color(data)
            if array is not None:
                return upright(array, _orientation(picture))
        # Pillow would cut 16-bit colour down to 8 bits.
        if picture.format == "PNG" and data[24] == 16 and picture.mode != "I;16":
            return upright(_decode_png16(data, channels), _orientation(picture))
        return _pillow_array(picture, channels)


def _pillow_array(picture: Image.Image, channels: int | None) -> np.ndarray:
    """Return a Pillow picture as an upright (H, W, C) array of its own; alpha only if `channels` asks for it."""
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode == "1":
        return np.array(picture.convert("L"))[..., None]
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        return plain_type(np.array(picture))[..., None]
    if mode in ("LA", "La"):
        array = np.array(picture.convert("LA"))
        return array if channels == 2 else np.ascontiguousarray(array[..., :1])
    if mode == "RGB":
        return np.array(picture)
    if mode in ("RGBA", "RGBa", "P", "PA"):
        array = np.array(picture.convert("RGBA"))
        return array if channels == 4 else np.ascontiguousarray(array[..., :3])
    return np.array(picture.convert("RGB"))


def _decode_jpeg(data: bytes) -> np.ndarray:
    array = _decode_color(data)
    if array is None:
        raise ValueError("no JPEG decoder accepts it")
    return array


def _decode_color(data: bytes) -> np.ndarray | None:
    """Same pixels as Pillow's (a test compares them) in about two thirds of the time; None where it is damaged."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _png_is_whole(data: bytes) -> bool:
    """Whether all chunks are there and agree with their checksums: of others Pillow tells better what is wrong."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place = end + 4
    return False


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether an end marker follows the last scan: OpenCV fills up what is missing without a word, Pillow refuses."""
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0


def _decode_png16(data: bytes, channels: int | None) -> np.ndarray:
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("image data is incomplete")
    grey_with_alpha = data[25] == 4  # OpenCV spreads it to four channels
    if grey_with_alpha:
        return array[..., [0, 3]] if channels == 2 else array[..., :1]
    return array[..., [2, 1, 0, 3]] if channels == 4 and array.shape[2] == 4 else array[..., [2, 1, 0]]


def _orientation(picture: Image.Image) -> int:
    # Pillow decodes a whole PNG to look for EXIF behind the pixels, where nobody writes it.
    if picture.format == "PNG" and not any("exif" in str(key).lower() for key in picture.info):
        return 1
    return int(picture.getexif().get(_ORIENTATION, 1))


def _check_array(array: np.ndarray, name: str | Path) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"array of shape {array.shape} is not a picture; expected (H, W) or (H, W, C)", name)
    if array.shape[0] in (1, 3, 4) and array.shape[2] > 16:
        raise DataError(f"array of shape {array.shape} looks like (C, H, W); expected (H, W, C)", name)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype not in (np.uint8, np.uint16, np.bool_):
        raise DataError(f"array of type {array.dtype}; expected uint8, uint16, float or bool", name)
    return plain_type(array)
