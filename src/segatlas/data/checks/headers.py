"""What the headers of all files show, without decoding a pixel: a fraction of a millisecond a file."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segatlas.data.checks.stats import ImageStats, MaskStats, TruthStats, fault_of
from segatlas.data.datasets.listing import Item, TruthRule
from segatlas.data.formats.guards import check_file
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError

PIECE = 4096


def head_of_image(path: Path, channels: int | None = None) -> ImageStats:
    """Return what the header of an image says (no digest, no values); a fault is part of it, nothing is raised.

    channels: those that a recipe declares; alpha counts where it makes just that many.
    """
    try:
        shape = read_shape(path)
    except (DataError, OSError) as error:
        return ImageStats(path=path, fault=fault_of(error, path))
    return ImageStats(
        path=path,
        size=(shape.height, shape.width),
        channels=shape.channels_as(channels),
        depth=shape.depth,
        orientation=shape.orientation,
    )


def head_of_mask(path: Path) -> MaskStats:
    """Return the size that the header of a mask says; a fault is part of it, nothing is raised."""
    try:
        shape = read_shape(path)
    except (DataError, OSError) as error:
        return MaskStats(path=path, fault=fault_of(error, path))
    return MaskStats(path=path, size=(shape.height, shape.width), is_lossy=shape.lossy)


def head_of_truth(item: Item, name: str, rule: TruthRule) -> TruthStats:
    """Return the size that the header of a truth says; a fault is part of it, nothing is raised."""
    path = item.truths[name]
    try:
        size = rule.size(item)
        return TruthStats(path=path, size=read_size(item.image) if size is None else size)
    except (DataError, OSError) as error:
        at = getattr(error, "path", None) or path
        return TruthStats(path=at, fault=fault_of(error, at))


def read_size(path: Path) -> tuple[int, int]:
    """Return the upright (H, W) that a header says. DataError where it cannot be read."""
    shape = read_shape(path)
    return shape.height, shape.width


def equal_files(paths: Iterable[Path], jobs: int) -> dict[Path, bytes]:
    """Return a digest for each file that has the same bytes as another one; all others are left out.

    Only files of one length are opened, and only those that agree in three pieces are read whole.
    """
    groups = [list(paths)]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for key in (_length, _pieces, _digest):
            groups = [part for group in groups for part in _split(group, key, pool)]
        return {path: _digest(group[0]) or b"" for group in groups for path in group}


def _split(group: list[Path], key: Callable[[Path], Hashable | None], pool: ThreadPoolExecutor) -> Iterable[list[Path]]:
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path, value in zip(group, pool.map(key, group), strict=True):
        if value is not None:
            found[value].append(path)
    return [part for part in found.values() if len(part) > 1]


def _length(path: Path) -> int | None:
    try:
        check_file(path)
        return path.stat().st_size
    except (DataError, OSError):
        return None


def _pieces(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            pieces = []
            for place in (0, size // 2, max(size - PIECE, 0)):
                stream.seek(place)
                pieces.append(stream.read(PIECE))
    except OSError:
        return None
    return hashlib.blake2b(b"".join(pieces), digest_size=16).digest()


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None
