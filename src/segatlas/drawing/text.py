"""Text on pictures. Pillow's own scalable font has ASCII letters only, so other scripts take a font that has them."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK = (28, 30, 33)
PAPER = (255, 255, 255)
MUTED = (110, 114, 120)

FIRST_EAST_ASIAN = "\u2e80"
EAST_ASIAN_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "simhei.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
)
"""Looked for among the system's fonts, in this order."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(size: int, text: str = "") -> Font:
    """Return a font of `size` pixels that can write `text`, as far as this machine has one."""
    if text.isascii():
        return _plain(size)
    return _east_asian(size) if max(text) >= FIRST_EAST_ASIAN else _european(size)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of one line of text."""
    return int(font(size, text).getlength(text) + 0.999)


def shortened(text: str, size: int, width: int) -> str:
    """Return `text`, or its beginning and three dots where it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a new sheet of white paper and the pen for it."""
    paper = Image.new("RGB", (width, height), PAPER)
    return paper, ImageDraw.Draw(paper)


@lru_cache(maxsize=32)
def _plain(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=32)
def _european(size: int) -> Font:
    """DejaVu Sans (Latin, Greek, Cyrillic and more), which comes with matplotlib; found without importing that."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return _plain(size)
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)


@lru_cache(maxsize=32)
def _east_asian(size: int) -> Font:
    for name in EAST_ASIAN_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return _european(size)
