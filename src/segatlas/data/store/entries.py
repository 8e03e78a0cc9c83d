"""One kept array as a file: a header of 64 bytes, then the raw values, read by memory map.

An entry is written under a temporary name and then renamed, so it is there whole or not at all. The header holds type
and shape, from which the file's size follows (a truncated entry is known at once), and a checksum of the values.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

import numpy as np

from segatlas.files import whole_file

MAGIC = b"SEGATLAS"
_HEADER = struct.Struct("<8s8s4QQQ")  # magic, type, number of axes, three lengths, checksum, of the header itself


class DamagedEntryError(Exception):
    """An entry is not what was written: truncated, altered, or no entry at all."""


def write_whole(path: str, *parts: bytes | memoryview) -> None:
    """Write a file under a temporary name of its own and rename it: the last of several writers wins.

    Raises OSError; no temporary file is left then.
    """
    # a power failure may damage an entry: its checksums tell, and it is made anew
    with whole_file(path, error=None, durable=False) as temporary, open(temporary, "wb", buffering=0) as stream:
        for part in parts:
            view = memoryview(part)
            while len(view):  # one call writes 2 GB at most
                view = view[stream.write(view) :]


def write_entry(path: str, array: np.ndarray) -> None:
    """Write an array of 1 to 3 axes whole or not at all. Raises OSError."""
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    shape = (*array.shape, *(1,) * (3 - array.ndim))
    kind = array.dtype.str.encode()
    fields = (MAGIC, kind, array.ndim, *shape, _checksum(values))
    write_whole(path, _HEADER.pack(*fields, _header_checksum(*fields)), values.data)


def open_entry(path: str, *, prove: bool) -> np.ndarray:
    """Return the array of an entry as a read-only map of its file: pages are read when they are touched.

    Args:
        path: the entry.
        prove: also compare the values with the checksum, which reads all of them.

    Raises:
        FileNotFoundError: there is none.
        DamagedEntryError: it is not what was written.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(descriptor).st_size < _HEADER.size:
            raise DamagedEntryError(f"{path}: shorter than its header")
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    *fields, header_checksum = _HEADER.unpack_from(content)
    magic, kind, axes, *shape, checksum = fields
    if magic != MAGIC or header_checksum != _header_checksum(*fields):
        raise DamagedEntryError(f"{path}: its header is damaged")
    dtype, shape = np.dtype(kind.rstrip(b"\0").decode()), shape[:axes]
    values = np.frombuffer(content, np.uint8, offset=_HEADER.size)
    if len(values) != dtype.itemsize * int(np.prod(shape)):
        raise DamagedEntryError(f"{path}: {len(values)} bytes of values, not {tuple(shape)} of {dtype}")
    if prove and _checksum(values) != checksum:
        raise DamagedEntryError(f"{path}: its values are not those written")
    return values.view(dtype).reshape(shape)


def _checksum(values: np.ndarray) -> int:
    """Return the sum of the 64-bit words: at the speed of memory, and blind only to words that change places."""
    whole = len(values) // 8 * 8
    words = int(np.add.reduce(values[:whole].view(np.uint64), dtype=np.uint64))
    return (words + int.from_bytes(values[whole:].tobytes(), "little")) % 2**64


def _header_checksum(*fields: int | bytes) -> int:
    return zlib.crc32(_HEADER.pack(*fields, 0))
