"""The one reader of masks, the one translator of their codes, and writers.

Raw codes are what a file stores: palette indices, grey values of 1 to 16 bits, or colours looked up in a table. They
become 0..K-1 or 255 (ignore) in `translate` and nowhere else. Nothing is thresholded, resized or smoothed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from segatlas.config.plain import NAN_CODE
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.reading import read_stored
from segatlas.data.formats.stored import codes_of, colors_of
from segatlas.errors import DataError
from segatlas.files import whole_file
from segatlas.labels import IGNORE, MAX_CLASSES

LOSSY_ENDINGS = (".jpg", ".jpeg")
LOSSY = "lossy_mask"
"""In `data.accept`: masks that were compressed with loss are taken as they are."""

Color = tuple[int, int, int]


class ColorMaskError(DataError):
    """A mask holds colours, and no table says what they mean."""


def read_mask(
    path: str | Path,
    colors: Mapping[Color, int] | None = None,
    *,
    lossy: bool = False,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Read the raw codes of a mask.

    Args:
        path: the file. Palette masks give their indices, grey masks their stored numbers, of whatever depth, and NaN as
            NAN_CODE. Colour masks whose three channels are equal are read as grey.
        colors: RGB colour -> code, for a colour-coded set. Then every mask is read as colours, palette masks too.
        lossy: take also masks that were compressed with loss (JPEG), whose numbers may have changed.
        max_pixels: refuse larger masks, see `images.read_image`.

    Returns:
        (H, W) uint8, uint16 or int32, the smallest of the three that the file's type fits.

    Raises:
        DataError: unreadable file; compressed with loss; a colour that is not in the table.
        ColorMaskError: a colour mask without a table.
    """
    return decode_mask(read_bytes(path), colors, lossy=lossy, name=path, max_pixels=max_pixels)


def decode_mask(
    data: bytes,
    colors: Mapping[Color, int] | None = None,
    *,
    lossy: bool = False,
    name: str | Path = "mask",
    max_pixels: int | None = None,
) -> np.ndarray:
    """Decode the bytes of a mask file; as `read_mask`, with `name` in messages."""
    stored = read_stored(data, name, max_pixels)
    if stored.lossy and not lossy:
        raise DataError(
            "is a mask compressed with loss (JPEG or the like), which changes labels: `segatlas data check --fix "
            "NEW_FOLDER` writes PNG masks; data.accept=[lossy_mask] takes the values as they are",
            name,
        )
    array = codes_of(stored, name) if colors is None else colors_of(stored, name)
    if colors is not None:
        return codes_of_colors(array, colors, name)
    if array.ndim == 2:
        return array
    if (array[..., 0] == array[..., 1]).all() and (array[..., 0] == array[..., 2]).all():
        return np.ascontiguousarray(array[..., 0])
    raise ColorMaskError(_color_mask_message(array, name), name)


def read_raw(path: str | Path, *, as_colors: bool = False, max_pixels: int | None = None) -> np.ndarray:
    """Read a mask as it is stored, whatever that means: what `read_mask` and `data check` look at.

    Args:
        path: the file.
        as_colors: give colours also for palette and grey masks of 8 bits.
        max_pixels: refuse larger masks, see `images.read_image`.

    Returns:
        (H, W) uint8, uint16 or int32 codes, or (H, W, 3) uint8 colours; upright.

    Raises:
        DataError: unreadable file, or values that are no codes.
    """
    return decode_raw(read_bytes(path), path, as_colors, max_pixels)


def decode_raw(data: bytes, name: str | Path, as_colors: bool = False, max_pixels: int | None = None) -> np.ndarray:
    """Decode the bytes of a mask file; as `read_raw`, with `name` in messages."""
    stored = read_stored(data, name, max_pixels)
    return colors_of(stored, name) if as_colors else codes_of(stored, name)


def as_codes(raw: np.ndarray, name: str | Path, count: int | None = None) -> np.ndarray:
    """Return what a further input of kind "label" holds: codes (H, W) uint8.

    Args:
        raw: a mask as it is stored, colours only where their three channels are equal.
        name: what messages call it.
        count: how many codes there are: 0..count-1 and 255; None = any numbers up to 255.

    Raises:
        DataError: of another shape or type, colours, or a code that is no class.
    """
    if raw.ndim == 3 and raw.shape[2] == 3:
        if not ((raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all()):
            raise DataError("holds colours; expected codes 0..255 of shape (height, width)", name)
        raw = raw[..., 0]
    if raw.ndim != 2 or raw.dtype.kind not in "biu" or (raw.size and not 0 <= raw.min() <= raw.max() <= IGNORE):
        raise DataError(f"{raw.dtype} of shape {raw.shape}; expected codes 0..255 of shape (height, width)", name)
    codes = raw.astype(np.uint8, copy=False)
    if count is not None and (bad := np.unique(codes[(codes >= count) & (codes != IGNORE)])).size:
        shown = ", ".join(map(str, bad[:5].tolist())) + (", ..." if bad.size > 5 else "")
        raise DataError(f"holds the codes {shown}; expected one of {count} classes, 0..{count - 1}, or 255", name)
    return codes


def codes_of_colors(array: np.ndarray, colors: Mapping[Color, int], path: str | Path | None = None) -> np.ndarray:
    """Look up every pixel of an (H, W, 3) uint8 colour mask in a table; exact matches only.

    Returns:
        (H, W) uint8 codes, or int32 where the table holds codes above 255.

    Raises:
        DataError: naming the first unknown colour, its count and position.
    """
    keys = np.array([pack_color(color) for color in colors], dtype=np.int32)
    codes = np.array(list(colors.values()), dtype=np.int32)
    order = np.argsort(keys)
    keys, codes = keys[order], codes[order]
    channels = array.astype(np.int32)
    packed = channels[..., 0] << 16 | channels[..., 1] << 8 | channels[..., 2]
    place = np.searchsorted(keys, packed).clip(max=len(keys) - 1)
    known = keys[place] == packed
    if not known.all():
        raise DataError(_unknown_color_message(array, packed, known, colors), path)
    return codes.astype(np.uint8 if codes.min() >= 0 and codes.max() <= 255 else np.int32)[place]


def translate(
    raw: np.ndarray,
    num_classes: int,
    *,
    label_map: Mapping[int, int] | None = None,
    ignore: Sequence[int] = (IGNORE,),
    path: str | Path | None = None,
) -> np.ndarray:
    """Turn raw codes into labels.

    Args:
        raw: (H, W) integer codes as `read_mask` gives them.
        num_classes: K, at most 255.
        label_map: raw code -> class index, or 255. Where given, every code must be in it or in `ignore`; where not,
            codes are class indices already. The map wins over `ignore`.
        ignore: raw codes that mean "ignore".
        path: the mask file, for messages.

    Returns:
        (H, W) uint8: 0..K-1, or 255 = ignore.

    Raises:
        DataError: naming the file, each code out of range and how many pixels hold it.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise DataError(f"{num_classes} classes; a dataset has at least 1 and at most {MAX_CLASSES}", path)
    classes = dict(label_map) if label_map is not None else {i: i for i in range(num_classes)}
    targets = dict.fromkeys(ignore, IGNORE) | classes
    outside = {code: target for code, target in targets.items() if target != IGNORE and not 0 <= target < num_classes}
    if outside:
        code, target = next(iter(outside.items()))
        raise DataError(f"label map sends {code} to {target}; expected 0..{num_classes - 1} or 255", path)
    if raw.dtype == np.uint8:
        codes, places = np.arange(256), raw
    else:
        codes, places = np.unique(raw, return_inverse=True)
    known = np.array([int(code) in targets for code in codes])
    labels = np.array([targets.get(int(code), IGNORE) for code in codes], np.uint8)
    bad = None if known.all() else _look_up(~known, places).reshape(raw.shape)
    if bad is not None and bad.any():
        raise DataError(_out_of_range_message(raw, bad, num_classes, label_map, ignore, path), path)
    return _look_up(labels, places).reshape(raw.shape)


def _look_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return `table[places]`; bytes in a table of 256 by OpenCV, which is ten times as quick."""
    if places.dtype != np.uint8 or len(table) != 256:
        return table[places]
    import cv2

    return cv2.LUT(places, table.view(np.uint8)).view(table.dtype)


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How the mask files of a dataset become labels: all that a label depends on besides its file.

    num_classes, label_map, ignore: as `translate` takes them. colors, lossy: as `read_mask` takes them.
    """

    num_classes: int
    label_map: Mapping[int, int] | None = None
    ignore: tuple[int, ...] = (IGNORE,)
    colors: Mapping[Color, int] | None = None
    lossy: bool = False

    def decode(self, data: bytes, path: str | Path) -> np.ndarray:
        """Return the label (H, W) uint8, 0..K-1 or 255, of a mask file's bytes; `path` is for messages.

        Raises:
            DataError: as `read_mask` and `translate`.
        """
        raw = decode_mask(data, self.colors, lossy=self.lossy, name=path)
        return translate(raw, self.num_classes, label_map=self.label_map, ignore=self.ignore, path=path)

    @cached_property
    def text(self) -> str:
        """A text that differs where the rule does."""
        tables = [None if table is None else sorted(table.items()) for table in (self.label_map, self.colors)]
        return f"{self.num_classes} {sorted(self.ignore)} {tables} {self.lossy}"


def code_text(code: int) -> str:
    """Return a raw code as recipes write it."""
    return "nan" if code == NAN_CODE else str(code)


def label_counts(raw: np.ndarray) -> dict[int, int]:
    """Return how many pixels hold each raw code, by rising code."""
    if raw.dtype in (np.uint8, np.uint16):
        counts = np.bincount(raw.ravel())
        return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}
    codes, numbers = np.unique(raw, return_counts=True)
    return {int(code): int(number) for code, number in zip(codes, numbers, strict=True)}


def write_mask(path: str | Path, array: np.ndarray, palette: Sequence[Color] | None = None) -> None:
    """Write an index PNG: 8 bits (with a palette if given), or 16 bits where a value is above 255.

    Args:
        path: file to write; it appears whole or not at all.
        array: (H, W) integers, 0..65535.
        palette: RGB colour of value 0, 1, ...; the rest of the 256 entries is black.

    Raises:
        DataError: values out of range, or the file cannot be written.
    """
    if array.ndim != 2 or array.dtype.kind not in "ui" or array.size == 0 or array.min() < 0 or array.max() > 65535:
        raise DataError(f"mask of shape {array.shape} and type {array.dtype}: expected (H, W) integers 0..65535", path)
    if array.max() > 255:
        image = Image.fromarray(array.astype(np.uint16))
    else:
        image = Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))
        if palette is not None:
            # All 256 entries: with fewer, Pillow saves fewer bits and would spoil 255.
            flat = [value for color in palette for value in color]
            image.putpalette(flat + [0] * (768 - len(flat)))
    _save_png(path, image)


def write_color_mask(
    path: str | Path, labels: np.ndarray, palette: Sequence[Color], ignore_color: Color = (0, 0, 0)
) -> None:
    """Write labels (H, W) uint8 as an RGB PNG; 255 gets `ignore_color`. Raises DataError as `write_mask`."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE] = ignore_color
    if labels.dtype != np.uint8 or not np.isin(np.unique(labels), [*range(len(palette)), IGNORE]).all():
        raise DataError(f"labels need type uint8 and values 0..{len(palette) - 1} or 255", path)
    _save_png(path, Image.fromarray(table[labels]))


def _save_png(path: str | Path, image: Image.Image) -> None:
    with whole_file(path, durable=False) as temporary:  # one of many, and made again by the same command
        image.save(temporary, format="PNG", compress_level=1)


def pack_color(color: Color) -> int:
    """Return the packed number of one colour."""
    return color[0] << 16 | color[1] << 8 | color[2]


def colors_in(array: np.ndarray) -> list[Color]:
    """Return the colours of an (H, W, 3) uint8 array, by R, G, B."""
    wide = array.astype(np.int32)
    packed = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])  # far quicker than rows of three
    return [(code >> 16, code >> 8 & 255, code & 255) for code in packed.tolist()]


def _color_mask_message(array: np.ndarray, path: str | Path) -> str:
    colors = colors_in(array)
    some = [f"'{r},{g},{b}'" for r, g, b in colors[:3]]
    listed = ", ".join(some) + (", ..." if len(colors) > 3 else "")
    text = f"is a colour mask with {len(colors)} colours ({listed}), not class indices"
    if Path(path).suffix.lower() in LOSSY_ENDINGS:
        return f"{text}; JPEG has smeared them: masks must be lossless, see `segatlas data check`"
    return f"{text}; name each in data.label_colors={{{some[0]}: 0, ...}}; `segatlas data check` prints the whole table"


def _unknown_color_message(
    array: np.ndarray, packed: np.ndarray, known: np.ndarray, colors: Mapping[Color, int]
) -> str:
    row, column = (int(i) for i in np.argwhere(~known)[0])
    first = packed[row, column]
    color = tuple(array[row, column].tolist())
    count = int((packed == first).sum())
    others = len(np.unique(packed[~known])) - 1
    nearest = min(colors, key=lambda known_color: sum(abs(a - b) for a, b in zip(known_color, color, strict=True)))
    return (
        f"colour {color} is not in the table of {len(colors)} colours: {count} pixel(s), first at row {row}, column "
        f"{column}; the nearest in the table is {nearest}"
        + (f"; {others} further unknown colour(s): was the mask resized or saved as JPEG?" if others else "")
    )


def _out_of_range_message(
    raw: np.ndarray,
    bad: np.ndarray,
    num_classes: int,
    label_map: Mapping[int, int] | None,
    ignore: Sequence[int],
    path: str | Path | None,
) -> str:
    counts = label_counts(raw[bad])
    some = ", ".join(f"{code_text(code)} ({count} pixels)" for code, count in list(counts.items())[:5])
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    if label_map is not None:
        expected = f"a value of the label map ({', '.join(map(str, sorted(label_map)[:12]))})"
    else:
        expected = f"0..{num_classes - 1}" + ("," if ignore else "")
    if ignore:
        expected += f" or {' or '.join(code_text(code) for code in ignore)} for ignore"
    if NAN_CODE in counts and NAN_CODE not in ignore:
        expected += "; data.ignore=[255, nan] makes NaN mean 'ignore'"
    text = f"label {some}{more} in a set of {num_classes} classes; expected {expected}"
    if path is not None and Path(path).suffix.lower() in LOSSY_ENDINGS:
        text += "; JPEG smears labels: masks must be lossless"
    return f"{text}; run `segatlas data check`, which names every such file and the repair"
