"""Images as PNG bytes and as files that are either whole or not there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from segatlas.files import whole_file

PNG_LEVEL = 3
"""A third of the time of Pillow's own choice for files of about the same size."""


def png_bytes(image: np.ndarray) -> bytes:
    """Return a (H, W, 3) or (H, W) uint8 image as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def save_image(image: np.ndarray, path: str | Path) -> Path:
    """Write a (H, W, 3) or (H, W) uint8 image; the ending of `path` decides the format.

    The file appears under its name only when it is complete. Raises ValueError for an ending that no format has, and
    DataError where the file cannot be written.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ValueError(f"{path}: no image format has the ending {path.suffix!r}; use .png, .jpg, .webp or .tif")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, quality=92, compress_level=PNG_LEVEL)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(content: bytes, path: str | Path) -> Path:
    """Write a file that appears under its name only when it is complete. Raises DataError where it cannot."""
    with whole_file(path, durable=False) as temporary:  # drawn from what is kept elsewhere
        temporary.write_bytes(content)
    return Path(path)
