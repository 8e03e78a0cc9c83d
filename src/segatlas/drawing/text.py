"""Text on pictures, in the scalable font that Pillow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

INK = (28, 30, 33)
PAPER = (255, 255, 255)
MUTED = (110, 114, 120)


@lru_cache(maxsize=32)
def font(size: int) -> FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font at `size` pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of one line of text."""
    return int(font(size).getlength(text) + 0.999)


def shortened(text: str, size: int, width: int) -> str:
    """Return `text`, or its beginning and an ellipsis where it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a new sheet of white paper and the pen for it."""
    paper = Image.new("RGB", (width, height), PAPER)
    return paper, ImageDraw.Draw(paper)
