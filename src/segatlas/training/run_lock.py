"""One run folder, one training: a lock of the operating system, which ends with the process however that ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from segatlas.errors import UsageError

LOGGER = logging.getLogger("segatlas")
LOCK_FILE = "run.lock"
HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
"""How systems say that another process holds the lock."""

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """Keeps other trainings out of a run folder from `take` to `release`.

    Several processes of one run are one training: only the first of them takes the lock. The file `run.lock` says who
    holds it; left over from a killed process it means nothing, because the lock itself is gone with the process.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._file: int | None = None

    def take(self, folder: Path) -> None:
        """Take the lock of `folder`, which exists; on a file system without locks say so and go on.

        Raises:
            UsageError: another training holds it; its process and the time it started are named.
            OSError: the folder cannot be written.
        """
        path = folder / LOCK_FILE
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
        except OSError as error:
            os.close(file)
            if error.errno in HELD:
                raise UsageError(
                    f"{folder} is in use: {_holder(path)}; wait for it, stop it, or choose another run.dir"
                ) from None
            with suppress(OSError):
                path.unlink()
            LOGGER.warning("no lock on %s (%s): nothing keeps a second training out of it", folder, error.strerror)
            return
        if not _is_still(path, file):  # removed by its last holder between our open and our lock
            os.close(file)
            self.take(folder)
            return
        self.path, self._file = path, file
        _HELD_HERE.add(self)
        with suppress(OSError):  # the lock holds without the words
            os.ftruncate(file, 0)
            os.write(file, _words().encode())

    def release(self) -> None:
        """Remove the file and give the lock back; without a lock nothing happens."""
        if self._file is None or self.path is None:
            return
        with suppress(OSError):
            self.path.unlink()
        self._close()

    def _close(self) -> None:
        """Close the file. In a forked process that leaves the lock with its parent."""
        _HELD_HERE.discard(self)
        if self._file is not None:
            os.close(self._file)
            self._file = None


_HELD_HERE: set[RunLock] = set()


def _forget() -> None:
    """In a forked loader process: an open copy of the file would hold the lock beyond the death of the training."""
    for lock in list(_HELD_HERE):
        lock._close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _words() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n"


def _holder(path: Path) -> str:
    """Return in words who holds the lock, as far as its file tells."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        words = f"process {int(found['process'])} on {found['host']} trains there since {found['since']}"
        return words if words.isprintable() else "another process trains there"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process trains there"
