"""What one file shows: every file is opened once and decoded once, and only these facts are kept.

Letters: H, W image. "Solid" pixels have the code of all four neighbours (in a JPEG: nearly so); "between" pixels lie
strictly between their left and right, or upper and lower, neighbours.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segatlas.data.datasets.listing import Item, LabelEncoding, TruthRule
from segatlas.data.formats.guards import is_volume_name, read_bytes
from segatlas.data.formats.nifti import (
    VolumeHeader,
    decode_volume,
    read_header,
    read_slice,
    whole_numbers,
    windowed,
)
from segatlas.data.formats.reading import read_stored
from segatlas.data.formats.stored import Stored, check_finite, codes_of, colors_of, image_of
from segatlas.errors import DataError
from segatlas.structures import VolumeSlices

MOST_COLORS = 512
"""Colours of a mask that are kept, the most frequent ones: a smoothed mask has thousands."""

JPEG_STEP = 8
"""How far neighbours in one area of a JPEG mask may differ."""

SMOOTHED_FRACTION = 0.12
"""Of the pixels at a step of two codes or more, the fraction that lies between, from which on a mask counts as
smoothed.

Masks of CamVid, Cityscapes, VOC, LIP, LoveDA, ADE20K and ISPRS have at most 0.02, the same masks resized with bilinear
interpolation (factors 0.5 to 2) at least 0.20.
"""

FEWEST_BETWEEN = 8
_AS_STORED = VolumeSlices()
_ABOVE_LIMIT = "above the limit"


@dataclass(frozen=True, kw_only=True)
class ImageStats:
    """An image file. fault is "" where it is readable; size is upright (H, W); depth is uint8, uint16 or float32.

    lowest, highest: of the stored values, over all channels.
    """

    path: Path
    fault: str = ""
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    depth: str = ""
    orientation: int = 1
    lowest: float = 0.0
    highest: float = 0.0
    digest: bytes = b""


@dataclass(frozen=True, kw_only=True)
class MaskStats:
    """A mask file. fault is "" where it is readable.

    counts: pixels of each code; of each packed colour (R << 16 | G << 8 | B) where `is_color`. solid: likewise, solid
    pixels only. colors: number of distinct codes or colours. between, steps: pixels, see SMOOTHED_FRACTION.
    is_color: stored with three channels. is_grey: all three are equal, everywhere. is_palette: indices of a palette.
    """

    path: Path
    fault: str = ""
    size: tuple[int, int] = (0, 0)
    counts: dict[int, int] = field(default_factory=dict)
    solid: dict[int, int] = field(default_factory=dict)
    colors: int = 0
    between: int = 0
    steps: int = 0
    is_color: bool = False
    is_grey: bool = True
    is_lossy: bool = False
    is_palette: bool = False

    @property
    def is_smoothed(self) -> bool:
        """Whether a resize (or anti-aliased drawing) left values between the classes."""
        return self.between >= FEWEST_BETWEEN and self.between > SMOOTHED_FRACTION * self.steps


@dataclass(frozen=True, kw_only=True)
class TruthStats:
    """A file of a truth that is no mask. fault is "" where its pixels can be read, misfit where they mean a truth.

    objects: how many there are of each class. problems: kind of finding and text of each further fault.
    """

    path: Path
    fault: str = ""
    misfit: str = ""
    size: tuple[int, int] = (0, 0)
    objects: Mapping[int, int] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()


def is_too_large(fault: str) -> bool:
    """Whether a file was refused for its size in pixels, rather than for damage."""
    return _ABOVE_LIMIT in fault


def look_at_image(path: Path, channels: int | None = None) -> ImageStats:
    """Read an image file; a fault is part of the result, nothing is raised. channels: as in `head_of_image`."""
    if is_volume_name(path):
        return _look_at_volume(path)
    try:
        stored = read_stored(read_bytes(path), path)
        array = check_finite(image_of(stored, channels, path), path)
    except DataError as error:
        return ImageStats(path=path, fault=fault_of(error, path))
    return ImageStats(
        path=path,
        size=(array.shape[0], array.shape[1]),
        channels=array.shape[2],
        depth=array.dtype.name,
        orientation=stored.orientation,
        lowest=float(array.min()),
        highest=float(array.max()),
        digest=hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).digest()
        + bytes(str(array.shape), "ascii"),
    )


def look_at_mask(path: Path, encoding: LabelEncoding, most_slices: int | None = None) -> MaskStats:
    """Read a mask file; a fault is part of the result, nothing is raised.

    most_slices: of a label volume, evenly spread ones; None = all.
    """
    if is_volume_name(path):
        return _look_at_labels(path, most_slices)
    try:
        data = read_bytes(path)
        stored = read_stored(data, path)
        raw = _raw(stored, data, path, encoding)
    except DataError as error:
        return MaskStats(path=path, fault=fault_of(error, path))
    is_color = raw.ndim == 3
    codes = pack(raw) if is_color else raw
    between, steps = count_between(raw.sum(axis=2, dtype=np.int16) if is_color else raw)
    counts = _count(codes)
    solid = _count(codes[solid_pixels(raw, JPEG_STEP if stored.lossy else 0)])
    return MaskStats(
        path=path,
        size=(raw.shape[0], raw.shape[1]),
        counts=_largest(counts) if is_color else counts,
        solid=_largest(solid) if is_color else solid,
        colors=len(counts),
        between=between,
        steps=steps,
        is_color=is_color,
        is_grey=not is_color or bool((raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all()),
        is_lossy=stored.lossy,
        is_palette=stored.color == "palette",
    )


def _look_at_volume(path: Path) -> ImageStats:
    """Read all voxels of a volume: as images its slices have values of 0..1, see `segatlas.data.datasets.volumes`."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        header = read_header(path)
        for values in _slices(path, header):
            windowed(values, _AS_STORED, path)
            digest.update(values.data)
    except DataError as error:
        return ImageStats(path=path, fault=fault_of(error, path))
    size, shape = header.size(_AS_STORED.axis), bytes(str(header.shape), "ascii")
    found = digest.digest() + shape
    return ImageStats(path=path, size=size, channels=3, depth="float32", lowest=0.0, highest=1.0, digest=found)


def _look_at_labels(path: Path, most_slices: int | None) -> MaskStats:
    """Read the voxels of a label volume, of `most_slices` evenly spread slices at most."""
    counts: Counter[int] = Counter()
    solid: Counter[int] = Counter()
    between = steps = 0
    try:
        header = read_header(path)
        for index, values in enumerate(_slices(path, header, most_slices)):
            codes = whole_numbers(values, path, index)
            counts.update(_count(codes))
            solid.update(_count(codes[solid_pixels(codes)]))
            found = count_between(codes)
            between, steps = between + found[0], steps + found[1]
    except DataError as error:
        return MaskStats(path=path, fault=fault_of(error, path))
    return MaskStats(
        path=path,
        size=header.size(_AS_STORED.axis),
        counts=dict(counts),
        solid=dict(solid),
        colors=len(counts),
        between=between,
        steps=steps,
    )


def _slices(path: Path, header: VolumeHeader, most: int | None = None) -> Iterator[np.ndarray]:
    """Yield the slices of a volume, of a packed one unpacked whole; at most `most` evenly spread ones."""
    count = header.slices(_AS_STORED.axis)
    chosen = np.unique(np.linspace(0, count - 1, count if most is None else min(most, count)).round().astype(int))
    whole = decode_volume(read_bytes(path), _AS_STORED, path) if path.suffix.lower() == ".gz" else None
    for index in chosen.tolist():
        yield read_slice(path, header, _AS_STORED, index) if whole is None else whole[index]


def look_at_truth(item: Item, name: str, rule: TruthRule) -> TruthStats:
    """Read the truth of an item that is no mask; a fault is part of the result, nothing is raised."""
    path = item.truths[name]
    try:
        seen = rule.look(item)
    except DataError as error:
        at = error.path or path
        return TruthStats(path=at, fault=fault_of(error, at))
    return TruthStats(path=path, size=seen.size, misfit=seen.misfit, objects=seen.objects, problems=seen.problems)


def _raw(stored: Stored, data: bytes, path: Path, encoding: LabelEncoding) -> np.ndarray:
    """Return codes (H, W), or colours (H, W, 3), or labels where the encoding has a rule that makes them."""
    if encoding.rule is not None:
        return encoding.rule.decode(data, path)
    return colors_of(stored, path) if encoding.colors is not None else codes_of(stored, path)


def pack(colors: np.ndarray) -> np.ndarray:
    """Turn (H, W, 3) uint8 colours into (H, W) int32 numbers R << 16 | G << 8 | B."""
    wide = colors.astype(np.int32)
    packed: np.ndarray = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def unpack(code: int) -> tuple[int, int, int]:
    """Return the colour of a packed number."""
    return code >> 16, code >> 8 & 255, code & 255


def solid_pixels(raw: np.ndarray, step: int = 0) -> np.ndarray:
    """Return (H, W) bool: pixels that differ from each of their four neighbours by at most `step`, in every channel.

    raw: (H, W) or (H, W, C) integers. Pixels at the rim are never solid.
    """
    solid = np.zeros(raw.shape[:2], bool)
    values = raw if step == 0 else raw.astype(np.int32)
    middle = values[1:-1, 1:-1]
    inside = np.ones(middle.shape[:2], bool)
    for other in (values[1:-1, :-2], values[1:-1, 2:], values[:-2, 1:-1], values[2:, 1:-1]):
        near = middle == other if step == 0 else np.abs(middle - other) <= step
        inside &= near.all(axis=2) if near.ndim == 3 else near
    solid[1:-1, 1:-1] = inside
    return solid


def count_between(values: np.ndarray) -> tuple[int, int]:
    """Return how many pixels lie between their neighbours, and how many have neighbours two or more apart.

    Both directions count, so that a pixel may count twice.
    """
    between = steps = 0
    for view in (values, values.T):
        low, high = np.minimum(view[:-2], view[2:]), np.maximum(view[:-2], view[2:])
        is_step = high - low >= 2
        steps += int(np.count_nonzero(is_step))
        between += int(np.count_nonzero(is_step & (view[1:-1] > low) & (view[1:-1] < high)))
    return between, steps


def fault_of(error: Exception, path: Path) -> str:
    """Return an error's text without the file's name before it."""
    return str(error).removeprefix(f"{path}: ")


def _largest(counts: dict[int, int]) -> dict[int, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:MOST_COLORS])


def _count(codes: np.ndarray) -> dict[int, int]:
    if codes.dtype in (np.uint8, np.uint16):
        counts = np.bincount(codes.ravel())
        return {int(code): int(counts[code]) for code in np.flatnonzero(counts)}
    values, numbers = np.unique(codes, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))
