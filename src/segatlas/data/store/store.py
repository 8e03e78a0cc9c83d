"""The decoded store: each image and label file is decoded once, by whichever process meets it first.

    STORE/CACHEDIR.TAG             marks the folder as a cache, for backup programs and for `clear`
    STORE/sources/a/PATH_HASH      size and times of a large source file, and the hash of its content
    STORE/entries/c/CONTENT-KIND   the decoded array, named by the hash of the content and what was asked for

An unchanged file (path, size, times) is known without reading it, a small one from its second use in a process on. One
that is new, moved, copied or touched is read and hashed; where that content has been decoded before, its entry serves.
Loader processes and runs share one folder without locks: entries are whole or absent, and two that decode the same file
write the same bytes. What a caller gets is the same with and without a store.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segatlas.cache import cache_folder
from segatlas.data.formats.guards import read_bytes
from segatlas.data.store.entries import DamagedEntryError, open_entry, write_entry, write_whole
from segatlas.files import sweep_leftovers
from segatlas.printable import on_terminal

if TYPE_CHECKING:
    from segatlas.config.schema import DataConfig

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "SEGATLAS_STORE"
OFF = "off"
RULES = "2"
"""To be raised when a reader gives other pixels for the same file than before: older entries then no longer serve."""
GIGABYTE = 10**9
RESERVE_FRACTION, RESERVE_MOST = 0.1, 20 * GIGABYTE
SETTLED_NS = 2 * 10**9
"""A file changed less than this before it was read may change again within one tick of its file system's clock."""
WORTH_NOTING = 1 << 18
"""Hashing a smaller file once in each process costs less than a file that notes its hash."""

_TAG_FILE = "CACHEDIR.TAG"
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Decoded images of SegAtlas: segatlas data store --clear\n"
_ENTRIES, _SOURCES = "entries", "sources"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a store holds: arrays and their bytes; and the bytes free on its disk."""

    folder: Path
    entries: int
    bytes: int
    free: int


class Store:
    """Decoded arrays on disk, shared by all processes.

    Args:
        folder: made when the first array is kept.
        reserve: bytes of the disk left free; default a tenth of it, at most 20 GB.
        fill: keep what is not there yet; otherwise only serve what is.
    """

    def __init__(self, folder: str | Path, *, reserve: int | None = None, fill: bool = True):
        self.folder = Path(folder).expanduser()
        self._root = os.path.abspath(self.folder)  # paths are joined as texts: it happens twice for each sample
        self.fill = fill
        self._reserve = reserve
        self._given_up = False
        self._noticed = False
        self._known: dict[str, tuple[str, str]] = {}  # path -> signature and content hash, as in sources/
        self._proved: set[str] = set()  # entries whose checksum this process has compared

    @classmethod
    def of(cls, cfg: DataConfig, *, fill: bool = True) -> Store | None:
        """Return the store that a recipe asks for, or None where it is off."""
        if cfg.store == OFF or (cfg.store is None and os.environ.get(FOLDER_VARIABLE) == OFF):
            return None
        reserve = None if cfg.store_reserve_gb is None else int(cfg.store_reserve_gb * GIGABYTE)
        return cls(cfg.store or default_folder(), reserve=reserve, fill=fill)

    def array(self, path: Path, kind: str, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """Return what `decode` makes of the content of a file, from the store where possible.

        Args:
            path: the source file.
            kind: all that the result depends on besides the content.
            decode: content -> array of 1 to 3 axes; what it raises is passed on.

        Returns:
            A read-only array: a memory map, or fresh from `decode`.

        Raises:
            DataError: the file cannot be read.
        """
        signature = _signature(path)
        digest = self._known_digest(path, signature) if signature else None
        found = self._find(digest, kind) if digest else None
        if found is not None:
            return found
        content = read_bytes(path)
        digest = _hash(content)
        if signature and signature == _signature(path):
            self._remember(path, signature, digest)
        found = self._find(digest, kind)
        if found is None:
            found = decode(content)
            found.flags.writeable = False
            self._keep(digest, kind, found)
        return found

    def made(self, content: bytes, kind: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return what `make` gives, from the store where possible: content and kind are all that it depends on.

        For entries of a file that many images share. The array is read-only, as that of `array`.
        """
        digest = _hash(content)
        found = self._find(digest, kind)
        if found is None:
            found = make()
            found.flags.writeable = False
            self._keep(digest, kind, found)
        return found

    def prepare(self) -> None:
        """Before a run: say now if nothing can be kept, and remove what killed processes left half-written."""
        known = on_terminal("") if (self.folder / _TAG_FILE).exists() else None
        if self._has_room(0):
            logger.info("decoded images are kept in %s (segatlas data store)", self.folder, extra=known)
        for folder in self.folder.glob("*/*"):
            sweep_leftovers(folder)

    def usage(self) -> Usage:
        """Count what is there."""
        sizes = []
        if (self.folder / _TAG_FILE).exists():
            for entry in (self.folder / _ENTRIES).glob("*/*"):
                with suppress(OSError):  # cleared or replaced meanwhile
                    sizes.append(entry.stat().st_size)
        return Usage(folder=self.folder, entries=len(sizes), bytes=sum(sizes), free=free_space(self.folder)[0])

    def clear(self) -> Usage:
        """Remove everything kept, and nothing else; return what was there. Runs that use the store go on."""
        before = self.usage()
        if (self.folder / _TAG_FILE).exists():
            for part in (_ENTRIES, _SOURCES):
                shutil.rmtree(self.folder / part, ignore_errors=True)
        return before

    def _find(self, digest: str, kind: str) -> np.ndarray | None:
        path = self._entry(digest, kind)
        try:
            array = open_entry(path, prove=path not in self._proved)
        except DamagedEntryError as error:
            logger.debug("decoded anew: %s", error)
            return None
        except OSError:
            return None
        self._proved.add(path)
        return array

    def _keep(self, digest: str, kind: str, array: np.ndarray) -> None:
        if self._has_room(array.nbytes):
            self._write(lambda: write_entry(self._entry(digest, kind), array))

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes may be kept now; if not for want of space, say so."""
        if not self.fill or self._given_up:
            return False
        free, total = free_space(self.folder)
        reserve = min(int(total * RESERVE_FRACTION), RESERVE_MOST) if self._reserve is None else self._reserve
        if free - size < reserve:
            self._notice(
                f"{free / GIGABYTE:.1f} GB are free there, {reserve / GIGABYTE:.1f} are left alone "
                "(data.store_reserve_gb)"
            )
            return False
        tag = os.path.join(self._root, _TAG_FILE)
        return os.path.exists(tag) or self._write(lambda: write_whole(tag, _TAG))

    def _write(self, write: Callable[[], None]) -> bool:
        """Carry out a write and return whether it went well; after one that did not, no other is tried."""
        try:
            write()
        except FileNotFoundError:
            return False  # the store is being cleared at this moment
        except OSError as error:
            self._given_up = True
            self._notice(f"it cannot be written ({error.strerror or error})")
            return False
        return True

    def _known_digest(self, path: Path, signature: str) -> str | None:
        """Return the content hash of a file that has not changed since it was hashed."""
        key = os.path.abspath(path)
        known = self._known.get(key)
        if known is None:
            try:
                known_signature, _, digest = Path(self._source(key)).read_text(encoding="ascii").partition(" ")
            except (OSError, ValueError):
                return None
            known = self._known[key] = (known_signature, digest)
        return known[1] if known[0] == signature else None

    def _remember(self, path: Path, signature: str, digest: str) -> None:
        key = os.path.abspath(path)
        newest = max(int(part) for part in signature.split(",")[1:])
        if time.time_ns() - newest < SETTLED_NS or self._known.get(key) == (signature, digest):
            return
        self._known[key] = (signature, digest)
        if int(signature.partition(",")[0]) >= WORTH_NOTING and self._has_room(0):
            self._write(lambda: write_whole(self._source(key), f"{signature} {digest}".encode("ascii")))

    def _entry(self, digest: str, kind: str) -> str:
        return os.path.join(self._root, _ENTRIES, digest[:1], f"{digest}-{_kind_name(kind)}")

    def _source(self, key: str) -> str:
        name = _hash(os.fsencode(key))
        return os.path.join(self._root, _SOURCES, name[:1], name)

    def _notice(self, why: str) -> None:
        """Say once why images are decoded each time; of several loader processes, one says it."""
        if not self._noticed and _speaks_for_the_run():
            logger.warning(
                "the decoded store %s takes no more: %s; images not in it are decoded each time, which gives the "
                "same samples in more time",
                self.folder,
                why,
            )
        self._noticed = True


def default_folder() -> Path:
    """Return the store's folder: SEGATLAS_STORE, else `store` in our cache folder (see `segatlas.cache`)."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given and given != OFF:
        return Path(given)
    return cache_folder("store")


def free_space(folder: Path) -> tuple[int, int]:
    """Return the free bytes and all bytes of the disk that a folder lies on, or would lie on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def _signature(path: Path) -> str | None:
    """Return size, time of modification and time of status change of a file, or None where there is none.

    The latter cannot be set back, so that a file rewritten with its old size and time is noticed.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return f"{stat.st_size},{stat.st_mtime_ns},{stat.st_ctime_ns}"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


@lru_cache(maxsize=256)
def _kind_name(kind: str) -> str:
    return _hash(f"{RULES} {kind}".encode())[:16]


def _speaks_for_the_run() -> bool:
    loader = sys.modules.get("torch.utils.data")
    worker = loader.get_worker_info() if loader is not None else None
    return worker is None or worker.id == 0
