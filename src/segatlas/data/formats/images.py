"""Read images of any common kind into one form: (H, W, C) arrays of uint8, uint16 or float32, RGB order.

What is done to every image:

- the EXIF orientation is applied, so that the array is upright;
- grey images have one channel, palette and CMYK images become RGB; grey and colours of fewer than 8 bits are
  spread over 0..255 (1-bit images become 0 / 255), and grey whose 0 is white is turned round;
- alpha is not a channel: it is dropped, unless exactly the channels with alpha are asked for (4 for RGBA, 2 for grey
  with alpha);
- 8 bits stay uint8, 16 bits stay uint16, everything else becomes float32;
- the channels of a TIFF (one page with N samples, or N pages of one channel) are the channels;
- NaN and infinite values are refused.

An image that cannot be read raises DataError naming the file and the fault. Its size is known before its pixels are
allocated: more than `MAX_PIXELS` are refused (environment variable SEGATLAS_MAX_PIXELS or `max_pixels=` raise that).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from segatlas.data.formats.guards import IMAGE_ENDINGS, MAX_PIXELS, decoding, read_bytes
from segatlas.data.formats.pixels import fit_channels, plain_type
from segatlas.data.formats.reading import read_shape, read_stored
from segatlas.data.formats.stored import check_finite, image_of
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
    "write_image",
]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an image says about itself before decoding: upright size in pixels, and channels without alpha."""

    height: int
    width: int
    channels: int


def read_image(path: str | Path, channels: int | None = None, *, max_pixels: int | None = None) -> np.ndarray:
    """Read an image file.

    Args:
        path: the file; its ending must be one of IMAGE_ENDINGS, its content decides how it is read.
        channels: channels wanted, see `fit_channels`; default: those of the file, without alpha.
        max_pixels: refuse larger images; default SEGATLAS_MAX_PIXELS, else MAX_PIXELS.

    Returns:
        (H, W, C) uint8, uint16 or float32, upright, RGB order.

    Raises:
        DataError: missing, empty, truncated, not an image, too large, of another number of channels, or with NaN or
            infinite values.
    """
    return decode_image(read_bytes(path), channels, name=path, max_pixels=max_pixels)


def decode_image(
    data: bytes, channels: int | None = None, *, name: str | Path = "image", max_pixels: int | None = None
) -> np.ndarray:
    """Decode the bytes of an image file; as `read_image`, with `name` in messages."""
    array = image_of(read_stored(data, name, max_pixels), channels, name)
    return fit_channels(check_finite(array, name), channels, name)


def as_image(source: Any, channels: int | None = None, *, name: str | Path = "image") -> np.ndarray:
    """Turn what a caller may hold into (H, W, C).

    Args:
        source: str or Path of a file, bytes of a file, PIL image, or array (H, W) or (H, W, C) of uint8, uint16,
            float or bool, RGB order.
        channels: channels wanted, see `fit_channels`.
        name: what messages call the image, where it is not a file.

    Raises:
        DataError: as `read_image`; also an empty array, or one of another shape or type.
    """
    if isinstance(source, str | Path):
        return read_image(source, channels)
    if isinstance(source, bytes):
        return decode_image(source, channels, name=name)
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise DataError(f"a PIL image of {source.width} x {source.height} pixels", name)
        with decoding(name):
            array = _pillow_array(source, channels)
        return fit_channels(check_finite(array, name), channels, name)
    if isinstance(source, np.ndarray):
        return fit_channels(check_finite(_check_array(source, name), name), channels, name)
    raise DataError(
        f"a {type(source).__name__} is not an image; expected a path, bytes, PIL image, array or tensor", name
    )


def write_image(target: Path, array: np.ndarray) -> Path:
    """Write an image without loss: `target` with `.png` behind it, or `.tif` for what PNG does not hold.

    Args:
        target: the file's path without an ending.
        array: (H, W, C) uint8, uint16 or float32, RGB order.

    Returns:
        The file.
    """
    if array.dtype in (np.uint8, np.uint16) and array.shape[2] in (1, 3):
        import cv2  # here: reading recipes does without

        ordered = array[..., ::-1] if array.shape[2] == 3 else array
        _, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
        file = target.with_name(f"{target.name}.png")
        file.write_bytes(data.tobytes())
        return file
    import tifffile

    file = target.with_name(f"{target.name}.tif")
    tifffile.imwrite(file, array, photometric="minisblack", planarconfig="contig")
    return file


def read_header(path: str | Path, *, max_pixels: int | None = None) -> Header:
    """Return an image's upright size and channels without decoding its pixels. Raises DataError as `read_image`."""
    shape = read_shape(path, max_pixels)
    return Header(height=shape.height, width=shape.width, channels=shape.channels)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return an image's upright (height, width) from its header."""
    header = read_header(path)
    return header.height, header.width


def _pillow_array(image: Image.Image, channels: int | None) -> np.ndarray:
    """Return a Pillow image as an upright (H, W, C) array of its own; alpha only if `channels` asks for it."""
    image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode == "1":
        return np.array(image.convert("L"))[..., None]
    if mode in ("L", "I", "F") or mode.startswith("I;16"):
        return plain_type(np.array(image))[..., None]
    if mode in ("LA", "La"):
        array = np.array(image.convert("LA"))
        return array if channels == 2 else np.ascontiguousarray(array[..., :1])
    if mode == "RGB":
        return np.array(image)
    if mode in ("RGBA", "RGBa", "P", "PA"):
        array = np.array(image.convert("RGBA"))
        return array if channels == 4 else np.ascontiguousarray(array[..., :3])
    return np.array(image.convert("RGB"))


def _check_array(array: np.ndarray, name: str | Path) -> np.ndarray:
    if isinstance(array, np.ma.MaskedArray) and array.mask.any():
        count = int(np.count_nonzero(array.mask))
        raise DataError(f"masked array with {count} masked values; array.filled(VALUE) says what stands there", name)
    array = np.asarray(array)  # no subclass, whose operations may be others
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 4 and 0 not in array.shape:
        raise DataError(f"array of shape {array.shape} is a batch; expected (H, W, C), or a list of them", name)
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"array of shape {array.shape} is not an image; expected (H, W) or (H, W, C)", name)
    if array.shape[0] in (1, 3, 4) and array.shape[2] > 16:
        raise DataError(f"array of shape {array.shape} looks like (C, H, W); expected (H, W, C)", name)
    if array.dtype.kind == "f":
        return plain_type(array)
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.bool_):
        raise DataError(f"array of type {array.dtype}; expected uint8, uint16, float or bool", name)
    return plain_type(array)
