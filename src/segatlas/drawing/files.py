"""Pictures as PNG bytes and as files that are either whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

PNG_LEVEL = 3
"""A third of the time of Pillow's own choice for files of about the same size."""


def png_bytes(picture: np.ndarray) -> bytes:
    """Return a (H, W, 3) or (H, W) uint8 picture as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def save_picture(picture: np.ndarray, path: str | Path) -> Path:
    """Write a (H, W, 3) or (H, W) uint8 picture; the ending of `path` decides the format.

    The file appears under its name only when it is complete. Raises ValueError for an ending that no format has.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ValueError(f"{path}: no picture format has the ending {path.suffix!r}; use .png, .jpg, .webp or .tif")
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind, quality=92, compress_level=PNG_LEVEL)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(content: bytes, path: str | Path) -> Path:
    """Write `content` under a temporary name in the same folder, then rename it to `path`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return path
