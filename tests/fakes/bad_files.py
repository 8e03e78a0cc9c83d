"""Files that are no good images, one of each kind, and weights files that would run code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fakes.images import raw_png
from PIL import Image


def noise(size: tuple[int, int] = (32, 48), seed: int = 0) -> np.ndarray:
    """Return an (H, W, 3) uint8 image that no format can compress to a few bytes."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, format=kind)
    return buffer.getvalue()


def cut(kind: str) -> bytes:
    whole = encoded(kind)
    return whole[: len(whole) // 2]


def bomb() -> bytes:
    """Return a PNG whose header promises 60000 x 60000 pixels."""
    return raw_png([b"\0" * 4], 60000, 8, 2, height=60000)


BAD_IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "half_jpeg.jpg": (lambda: cut("JPEG"), "truncated"),
    "half_png.png": (lambda: cut("PNG"), "truncated"),
    "half_tiff.tif": (lambda: cut("TIFF"), "truncated"),
    "half_webp.webp": (lambda: cut("WEBP"), "truncated"),
    "empty.png": (lambda: b"", "0 bytes"),
    "text.png": (lambda: b"once upon a time", "is not an image"),
    "bomb.png": (bomb, "60000 x 60000 pixels"),
}
"""File name -> (its content, a word of the fault that must be told)."""


def write_bad_images(folder: Path) -> dict[str, str]:
    """Write every kind; return name -> word of its fault."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in BAD_IMAGES.items():
        (folder / name).write_bytes(content())
    return {name: word for name, (_, word) in BAD_IMAGES.items()}


class Attack:
    """Unpickled, it makes the file `trace`."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (exec, (f"open({str(self.trace)!r}, 'w').close()",))


def write_attack(path: Path, trace: Path) -> Path:
    """Write a weights file in torch's zip format, whose pickle would run code: plain `torch.load` would."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}, "card": Attack(trace)}, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path
