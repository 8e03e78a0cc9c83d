"""What the headers of all files show, without decoding a pixel: a fraction of a millisecond a file."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segatlas.data.doctor.facts import MaskFacts, PictureFacts, fault_of
from segatlas.data.formats.guards import check_file, decoding, open_picture
from segatlas.data.formats.images import read_header
from segatlas.errors import DataError

PIECE = 4096
_PNG, _JPEG, _TIFF = b"\x89PNG", b"\xff\xd8\xff", (b"II", b"MM")
_ORIENTATION = 0x0112


def head_of_picture(path: Path) -> PictureFacts:
    """Return what the header of an image says (no digest, no values); a fault is part of it, nothing is raised."""
    try:
        begin = _begin(path)
        header = read_header(path)
        return PictureFacts(
            path=path,
            size=(header.height, header.width),
            channels=header.channels,
            depth=_depth(path, begin),
            orientation=_orientation(path) if begin.startswith(_JPEG) else 1,
        )
    except DataError as error:
        return PictureFacts(path=path, fault=fault_of(error, path))


def head_of_mask(path: Path) -> MaskFacts:
    """Return the size that the header of a mask says; a fault is part of it, nothing is raised."""
    try:
        begin = _begin(path)
        header = read_header(path)
        return MaskFacts(path=path, size=(header.height, header.width), is_lossy=begin.startswith(_JPEG))
    except DataError as error:
        return MaskFacts(path=path, fault=fault_of(error, path))


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


def _begin(path: Path) -> bytes:
    try:
        with check_file(path).open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error


def _depth(path: Path, begin: bytes) -> str:
    """Return the type that the image will be decoded to, as far as headers tell."""
    if begin.startswith(_PNG):
        return "uint16" if begin[24:25] == b"\x10" else "uint8"
    if begin[:2] in _TIFF:
        import tifffile

        with decoding(path), tifffile.TiffFile(path) as tiff:
            dtype = tiff.pages.first.dtype
            name = "" if dtype is None else dtype.name
        return {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}.get(name, "float32")
    if begin[:2] in (b"P5", b"P6"):
        words = [word for line in begin.splitlines()[:8] if not line.startswith(b"#") for word in line.split()]
        return "uint16" if len(words) > 3 and words[3].isdigit() and int(words[3]) > 255 else "uint8"
    return "uint8"


def _orientation(path: Path) -> int:
    with open_picture(path, path) as picture, decoding(path):
        value = picture.getexif().get(_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1
