"""The zip files that `torch.save` writes: where each member lies in the file. Nothing is unpacked or copied here."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

from segatlas.errors import WeightsError

MOST_MEMBERS = 100_000
"""Members of an archive at most; one of a large checkpoint with its optimiser has some thousands."""

_DIRECTORY_BYTES = 1 << 24
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 0xFFFF
_END_64, _LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
_LOCAL, _LOCAL_SIZE = b"PK\x03\x04", 30
_ENCRYPTED = 0x1
_CRC_PIECE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Member:
    """Bytes of a file: where they begin, how many they are, and their checksum (None where the file has none).

    changed: "compressed" or "encrypted" where the bytes are not the content itself, else "".
    """

    name: str
    start: int
    size: int
    crc: int | None
    changed: str = ""

    def check(self, data: mmap) -> None:
        """Raise WeightsError where the bytes are not the content, or differ from the checksum."""
        if self.changed:
            raise WeightsError(f"refused, {self.name} is {self.changed}, torch never does that; write it by torch.save")
        if self.crc is None:
            return
        found, end = 0, self.start + self.size
        view = memoryview(data)
        for start in range(self.start, end, _CRC_PIECE):
            found = zlib.crc32(view[start : min(end, start + _CRC_PIECE)], found)
        view.release()
        if found != self.crc:
            raise WeightsError(f"damaged (the checksum of {self.name} differs; the file was changed or cut)")


def members(path: Path, data: mmap) -> Mapping[str, Member]:
    """Return the members of an archive by name.

    Raises:
        WeightsError: damaged, members given twice, or too many of them.
    """
    _require_small_directory(data)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeError) as error:
        raise WeightsError(f"damaged ({error})") from None
    if len(entries) > MOST_MEMBERS:
        raise WeightsError(f"refused, it holds {len(entries):,} members (at most {MOST_MEMBERS:,})")
    checked = any(entry.CRC for entry in entries)  # torch can leave all of them out, then each is 0
    found: dict[str, Member] = {}
    for entry in entries:
        if entry.filename in found:
            raise WeightsError(f"damaged (it holds {entry.filename} twice)")
        start = _start(data, entry.header_offset)
        if start + entry.compress_size > len(data):
            raise WeightsError(f"truncated ({entry.filename} goes on behind the end of the file)")
        packed = entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
        changed = "encrypted" if entry.flag_bits & _ENCRYPTED else "compressed" if packed else ""
        crc = entry.CRC if checked else None
        found[entry.filename] = Member(
            name=entry.filename, start=start, size=entry.compress_size, crc=crc, changed=changed
        )
    return found


def _start(data: mmap, header: int) -> int:
    """Return where the bytes of a member begin, given the place of the header before them."""
    if header < 0 or data[header : header + 4] != _LOCAL or header + _LOCAL_SIZE > len(data):
        raise WeightsError("damaged (its table of contents names places where nothing begins)")
    name_and_extra = (int.from_bytes(data[header + at : header + at + 2], "little") for at in (26, 28))
    return header + _LOCAL_SIZE + sum(name_and_extra)


def _require_small_directory(data: mmap) -> None:
    """Look at the size of the table of contents before it is read."""
    end = data.rfind(_END, max(0, len(data) - _END_SIZE - _LONGEST_COMMENT))
    if end < 0:
        raise WeightsError("truncated torch file (its table of contents, at the end, is missing)")
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    locator = end - 20
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR_64:
        place = int.from_bytes(data[locator + 8 : locator + 16], "little")
        if data[place : place + 4] == _END_64:
            size = int.from_bytes(data[place + 40 : place + 48], "little")
    if size > _DIRECTORY_BYTES:
        raise WeightsError(f"refused, its table of contents has {size:,} bytes (at most {_DIRECTORY_BYTES:,})")
