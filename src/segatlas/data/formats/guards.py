"""What stands between a file and a decoder: existence, kind, size in pixels, and names in error messages."""

from __future__ import annotations

import difflib
import io
import math
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from segatlas.errors import DataError, SegAtlasError, UsageError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VOLUME_ENDINGS = (".nii", ".nii.gz")
"""Endings of volumes, whose slices some datasets have as images."""

MAX_PIXELS = 2**28
"""Largest image read by default, in pixels (16384 x 16384); channels beyond four count too."""

_LIMIT_VARIABLE = "SEGATLAS_MAX_PIXELS"
_BYTES_PER_PIXEL = 16  # four channels of float32, uncompressed
_BYTES_OTHER_THAN_PIXELS = 2**26
_pillow_limit_lock = threading.Lock()


class NotReadError(ValueError):
    """A file of a kind that is not read: whole as far as anybody knows, so nothing is said about damage."""


def is_volume_name(path: str | Path) -> bool:
    """Whether a file of this name is taken for a volume: by its ending, in upper or lower case."""
    return Path(path).name.lower().endswith(VOLUME_ENDINGS)


def check_file(path: str | Path, endings: Sequence[str] = IMAGE_ENDINGS) -> Path:
    """Return `path` if it is a file with content, one of the endings and no more bytes than any image needs.

    Raises:
        DataError: saying what is wrong. Nothing has been read yet.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise DataError("is a folder, expected an image file", path)
    if not path.suffix or not path.name.lower().endswith(tuple(endings)):
        raise DataError(f"ending {path.suffix or '(none)'} is not read; expected one of {' '.join(endings)}", path)
    if status is None:
        if path.is_symlink():
            raise DataError(f"is a link to {os.readlink(path)}, which is not there", path)
        raise DataError(f"no such file{_nearest(path)}", path)
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is no regular file (a pipe, socket or device)", path)
    if status.st_size == 0:
        raise DataError("the file is empty (0 bytes)", path)
    most = _BYTES_PER_PIXEL * pixel_limit() + _BYTES_OTHER_THAN_PIXELS
    if status.st_size > most:
        raise DataError(
            f"is {status.st_size / 2**30:.1f} GiB, above the limit of {most / 2**30:.1f} GiB that an image of "
            f"{pixel_limit()} pixels needs. If it is real, raise {_LIMIT_VARIABLE}",
            path,
        )
    return path


def read_bytes(path: str | Path) -> bytes:
    """Return the content of an image file or a volume; DataError when there is none."""
    path = check_file(path, VOLUME_ENDINGS if is_volume_name(path) else IMAGE_ENDINGS)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    except MemoryError as error:
        raise DataError(
            f"is {path.stat().st_size / 2**30:.1f} GiB, more than this machine's memory holds", path
        ) from error


@contextmanager
def decoding(name: str | Path) -> Iterator[None]:
    """Name the file in whatever a decoder raises: a broken file can make it raise nearly anything."""
    try:
        yield
    except SegAtlasError:
        raise
    except NotReadError as error:
        raise DataError(str(error), name) from error
    except Exception as error:
        raise DataError(f"cannot be decoded, is the file truncated or damaged? ({error})", name) from error


def open_image(data: bytes | Path, name: str | Path, max_pixels: int | None = None) -> Image.Image:
    """Open an image with Pillow, header only, and check its size; DataError if it is no image or too large."""
    try:
        # Pillow's own limit is one global number with a warning below it: ours is per call.
        with _pillow_limit_lock:
            saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
            finally:
                Image.MAX_IMAGE_PIXELS = saved
    except UnidentifiedImageError as error:
        raise DataError(f"is not an image, or its header is damaged (it begins with {_begin(data)!r})", name) from error
    except Exception as error:
        raise DataError(f"cannot be opened, is the file truncated or damaged? ({error})", name) from error
    width, height = image.size
    try:
        check_pixels(height, width, len(image.getbands()), name, max_pixels)
    except DataError:
        image.close()
        raise
    return image


def check_pixels(height: int, width: int, channels: int, name: str | Path, max_pixels: int | None = None) -> None:
    """Raise DataError where an image is larger than allowed; nothing has been allocated for it yet."""
    limit = max_pixels if max_pixels is not None else pixel_limit()
    if height * width * max(channels, 4) > 4 * limit:
        raise DataError(
            f"is {width} x {height} pixels with {channels} channel(s), above the limit of {limit} pixels: damaged, or "
            f"one made to exhaust memory. If it is real, raise {_LIMIT_VARIABLE}",
            name,
        )


def check_voxels(shape: Sequence[int], name: str | Path) -> None:
    """Raise DataError where a volume is larger than allowed: four times the pixels of an image, of one value each."""
    limit = 4 * pixel_limit()
    if math.prod(shape) > limit:
        sides = " x ".join(map(str, shape))
        raise DataError(
            f"has {sides} voxels, above the limit of {limit}: damaged, or one made to exhaust memory. If it is real, "
            f"raise {_LIMIT_VARIABLE}",
            name,
        )


def pixel_limit() -> int:
    """Return how many pixels an image may have: MAX_PIXELS, or what the environment variable says."""
    value = os.environ.get(_LIMIT_VARIABLE)
    if value is None:
        return MAX_PIXELS
    if not value.isdigit():
        raise UsageError(f"environment variable {_LIMIT_VARIABLE}={value}: expected a number of pixels")
    return int(value)


def _begin(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return data[:16]
    with data.open("rb") as stream:
        return stream.read(16)


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; nor is there a folder {path.parent}"
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; the nearest name there is {close[0]}" if close else ""
