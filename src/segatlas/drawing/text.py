"""Text on images, in any script for which this machine has a font.

Pillow's own scalable font has ASCII letters only; DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic,
Hebrew and Arabic letters; for the rest, the system's fonts are looked through. A text takes the first font that has all
of its characters, else the one that has most. What no font has is drawn as a box, and said once in the log.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK = (28, 30, 33)
PAPER = (255, 255, 255)
MUTED = (110, 114, 120)

LOGGER = logging.getLogger("segatlas")

KNOWN_FONTS = (
    "NotoSansCJK-Regular",
    "NotoSansCJKsc-Regular",
    "NotoSansSC-Regular",
    "SourceHanSansSC-Regular",
    "wqy-microhei",
    "wqy-zenhei",
    "DroidSansFallbackFull",
    "msyh",
    "simhei",
    "PingFang",
    "Hiragino Sans GB",
    "Arial Unicode",
    "NotoSans-Regular",
    "FreeSans",
    "Symbola",
)
"""Stems of files that have many characters; looked at before the others."""

MOST_FONTS = 300
"""Fonts of the system that are looked through for a character; the rest is left, so that none costs seconds."""

NO_CHARACTER = "\U0010fffe"
"""Never assigned: what a font draws for it is its box for missing characters."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_told: set[str] = set()


def font(size: int, text: str = "") -> Font:
    """Return a font of `size` pixels that can write `text`, as far as this machine has one."""
    file = font_file(text)
    return _plain(size) if file is None else _load(file, size)


def font_file(text: str) -> Path | None:
    """Return the file of the font that can write `text`; None for the one that Pillow brings.

    Characters that it has not are said in the log, each once in a process, see `tell_missing`.
    """
    tell_missing([text])
    wanted = _wanted(text)
    return _best_font(wanted)[0] if wanted else None


def tell_missing(texts: Iterable[str]) -> None:
    """Say in the log, once in a process, which characters of `texts` cannot be drawn and what to install.

    Called with all texts of an image before the first is drawn, it says one line for all.
    """
    missing = frozenset[str]().union(*(_best_font(wanted)[1] for text in texts if (wanted := _wanted(text))))
    new = sorted(missing - _told)
    if new:
        _told.update(new)
        more = f" and {len(new) - 20} more characters" if len(new) > 20 else ""
        LOGGER.warning(
            "the fonts of this machine lack %s%s: images show boxes instead; %s", " ".join(new[:20]), more, _advice(new)
        )


def one_line(text: str) -> str:
    """Return `text` as it can be drawn: what is no character to print (a line break, half a character) is a box."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of one line of text."""
    return int(font(size, text).getlength(text) + 0.999)


def shortened(text: str, size: int, width: int) -> str:
    """Return `text` on one line, or its beginning and three dots where it is wider than `width` pixels."""
    text = one_line(text[: 4 * width])  # no letter is narrower than a quarter of a pixel
    if text_width(text, size) <= width:
        return text
    fits, cut = 0, len(text)  # letters that fit, letters that do not
    while cut - fits > 1:
        middle = (fits + cut) // 2
        if text_width(text[:middle] + "...", size) <= width:
            fits = middle
        else:
            cut = middle
    return text[:fits] + "..."


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a new sheet of white paper and the pen for it."""
    paper = Image.new("RGB", (width, height), PAPER)
    return paper, ImageDraw.Draw(paper)


def _wanted(text: str) -> frozenset[str]:
    return frozenset() if text.isascii() else frozenset(letter for letter in text if _needs_a_glyph(letter))


def _needs_a_glyph(letter: str) -> bool:
    """Tell whether a character is one that ASCII fonts lack and that is seen: no mark, space or sign of control."""
    return not letter.isascii() and unicodedata.category(letter)[0] not in "MZC"


@lru_cache(maxsize=1024)
def _best_font(wanted: frozenset[str]) -> tuple[Path | None, frozenset[str]]:
    """Return the first font with all `wanted` characters, else the one with most, and what it lacks."""
    best: tuple[Path | None, frozenset[str]] = (None, wanted)
    for file in _fonts():
        missing = frozenset(letter for letter in wanted if not _has(file, letter))
        if len(missing) < len(best[1]) or best[0] is None:
            best = (file, missing)
        if not missing:
            break
    return best


@lru_cache(maxsize=65536)
def _has(file: Path, letter: str) -> bool:
    try:
        face = _load(file, 16)
        glyph, box = face.getmask(letter), face.getmask(NO_CHARACTER)
    except (OSError, ValueError):  # a font of bitmaps in one size (emoji), or a damaged file
        return False
    return (glyph.size, bytes(glyph)) != (box.size, bytes(box))


@lru_cache(maxsize=32)
def _plain(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _load(file: Path, size: int) -> Font:
    return ImageFont.truetype(file, size)


@cache
def _fonts() -> tuple[Path, ...]:
    """Return DejaVu Sans, then the system's fonts: well-known ones, upright Noto, the others by name."""
    spec = find_spec("matplotlib")
    own = (
        [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"]
    )
    known = {stem.lower(): place for place, stem in enumerate(KNOWN_FONTS)}

    def rank(file: Path) -> tuple[int, bool, str]:
        return known.get(file.stem.lower(), len(known)), "regular" not in file.stem.lower(), file.name

    system = sorted({file.name: file for folder in _font_folders() for file in _font_files(folder)}.values(), key=rank)
    return tuple(file for file in [*own, *system[:MOST_FONTS]] if file.is_file())


def _font_folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", home / "AppData/Local/Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/Library/Fonts"), Path("/System/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    return [Path(folder) / "fonts" for folder in (own, *data.split(":"))] + [home / ".fonts"]


def _font_files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names if name.lower().endswith((".ttf", ".otf", ".ttc")))


def _advice(letters: list[str]) -> str:
    """Return which fonts have such characters."""
    east_asian = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"}
    kinds = {unicodedata.name(letter, "").split(" ")[0] in east_asian for letter in letters}
    advice = []
    if True in kinds:
        advice.append("Noto Sans CJK (fonts-noto-cjk on Debian and Ubuntu)")
    if False in kinds:
        advice.append("a font of outlines that has them, such as Noto Sans (fonts-noto-core)")
    return "install " + " and ".join(advice)
