"""Files and folders that are written whole or not at all, and text that is read with a word on what is wrong with it.

Everything is first written under a name of its own beside its place, then renamed:

    .NAME.MACHINE-PROCESS-RANDOM.tmp     being written
    .NAME.MACHINE-PROCESS-RANDOM.old     the folder that a new one is taking the place of

The names are unique for each call, so that threads and processes may write one path at the same time: each succeeds,
the last one stays. What a killed process left under such a name is removed by the next one (`sweep_leftovers`).

One rule for links: a link to a file becomes a file of its own, and what it named stays as it is (the caches and data
stores that are made of links must not be changed through them); a link to a folder is followed.

Loads no torch.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from segatlas.errors import DataError, SegAtlasError

ABANDONED_SECONDS = 24 * 3600
"""Age from which a leftover counts as abandoned where nothing can be told about its process."""
MOST_TEXT_BYTES = 1 << 30

_MOST_NAME_BYTES = 255
_OURS = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)")
_EARLIER = re.compile(r"\.(?P<name>.+)\.(?:(?P<kind>new|old)-[0-9a-f]{8}|\d+(?:\.[0-9a-f]{8})?\.tmp)")
"""What versions before this module called a file or folder that was being written."""
_MOST_SWAPS = 100
_SWAPPING = threading.Lock()
_in_use: set[str] = set()
"""The temporary names of this process: another one with its number in it is from an earlier process."""


@contextmanager
def whole_file(
    path: str | Path, *, error: type[SegAtlasError] | None = DataError, durable: bool = True
) -> Iterator[Path]:
    """Yield the path of an empty file beside `path`; it takes the real name only if the block ends well.

    Folders above `path` are made. The file has the mode that the umask gives, whatever the writer made of it. A device
    or pipe is written to directly.

    Args:
        path: where to.
        error: what is raised instead of an OSError; None: the OSError itself.
        durable: have the content on the disk before it takes the name, so that a power failure leaves the old file or
            the new one. Costs milliseconds; False is for what is easily made again.

    Raises:
        SegAtlasError: of the class `error`, naming `path`, where it cannot be written (rights, full disk).
    """
    target = Path(os.path.abspath(path))
    with _named(error, path, target):
        if _is_device(target):
            yield target
            return
        with _temporary(target) as temporary:
            mode = _make_empty(temporary)
            try:
                yield temporary
                if stat.S_IMODE(temporary.stat().st_mode) != mode:
                    temporary.chmod(mode)
                if durable:
                    _to_disk(temporary)
                os.replace(temporary, target)
            finally:
                with suppress(OSError):  # the first error is the one to tell
                    temporary.unlink(missing_ok=True)
        if durable:
            _to_disk(target.parent)


@contextmanager
def whole_folder(
    path: str | Path, *, error: type[SegAtlasError] = DataError, durable: bool = True, replace: bool = False
) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it takes the real name only if the block ends well.

    First, what killed processes left of the same folder is removed, or put back where nothing else is there.

    Args:
        path: where to; a link to a folder is followed.
        error: what is raised instead of an OSError.
        durable: as for `whole_file`, for each file in the folder.
        replace: take the place of an existing folder, files of which the new one has none of that name stay. False: a
            folder that is not empty is an error.

    Raises:
        SegAtlasError: of the class `error`, naming `path`, where it cannot be written or is not empty.
    """
    target = Path(os.path.realpath(path))
    with _named(error, path, target):
        _make_folder(target.parent)
        sweep_leftovers(target.parent, target.name)
        with _temporary(target) as temporary:
            temporary.mkdir()
            try:
                yield temporary
                if durable:
                    _tree_to_disk(temporary)
                if replace:
                    _swap_in(temporary, target)
                else:
                    _move_in(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        if durable:
            _to_disk(target.parent)


def point_link(link: str | Path, target: str | Path) -> None:
    """Make `link` a relative link to `target`, in one step where it exists already. Raises OSError."""
    link = Path(os.path.abspath(link))
    with _temporary(link) as temporary:
        try:
            temporary.symlink_to(os.path.relpath(Path(target).resolve(), link.parent.resolve()))
            os.replace(temporary, link)
        finally:
            temporary.unlink(missing_ok=True)


def require_writable(folder: str | Path, *, error: type[SegAtlasError] = DataError) -> None:
    """Try a folder, or the nearest one above it that exists, with an empty file; nothing is left behind.

    Raises an `error` naming the folder where nothing can be written there.
    """
    there = next(path for path in (Path(folder), *Path(os.path.abspath(folder)).parents) if os.path.lexists(path))
    trial = _sibling(there / "trial", "tmp")
    try:
        trial.touch()
        trial.unlink()
    except OSError as fault:
        raise error(f"cannot write to the folder {folder}: {fault.strerror or fault}") from fault


def sweep_leftovers(folder: str | Path, name: str | None = None) -> list[Path]:
    """Remove what killed processes left half-written in a folder; return what was removed.

    Only names of our own pattern whose process is gone, or that nobody has touched for a day where that cannot be told
    (another machine, or a process number given anew). A folder that had been moved aside is put back, or what only it
    holds is moved to the folder that took its place.

    Args:
        folder: looked through, not what is below it.
        name: only leftovers of this file or folder.
    """
    removed = []
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.name.startswith(".")]
    except OSError:
        return []
    for entry in entries:
        found = _OURS.fullmatch(entry.name) or _EARLIER.fullmatch(entry.name)
        if found is None or (name is not None and found["name"] != _short(name)) or not _is_abandoned(entry, found):
            continue
        with suppress(OSError):  # another process was quicker
            if found["kind"] == "old" and entry.is_dir() and not entry.is_symlink():
                _put_back(entry, entry.with_name(found["name"] if name is None else name))
            elif entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
            removed.append(entry)
    return removed


def read_text(path: str | Path, *, error: type[SegAtlasError] = DataError, most_bytes: int = MOST_TEXT_BYTES) -> str:
    r"""Return the text of a UTF-8 file, without its byte order mark, line ends as "\n".

    Raises:
        SegAtlasError: of the class `error`, naming the file: it is missing or cannot be read, is larger than
            `most_bytes`, or is not UTF-8 text, with the place of the first wrong byte and what the file seems to be.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except FileNotFoundError:
        raise _error(error, "no such file", path) from None
    except OSError as fault:
        raise _error(error, f"cannot be read: {fault.strerror or fault}", path) from fault
    if len(content) > most_bytes:
        raise _error(error, f"is larger than {most_bytes} bytes, too large for a text file", path)
    text, place = "", content.find(b"\0")
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        text = content[mark:].decode("utf-8")
    except UnicodeDecodeError as fault:
        place = mark + fault.start if place < 0 else min(place, mark + fault.start)
    if place >= 0:
        raise _error(
            error,
            f"is not text in UTF-8 (byte 0x{content[place]:02x} at offset {place}); it seems to be "
            f"{_looks_like(content)}; save it as UTF-8",
            path,
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256(path: str | Path, *, error: type[SegAtlasError] = DataError) -> str:
    """Return the hash of a file as hex digits. Raises an `error` naming the file where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise _error(error, f"cannot be read: {fault.strerror or fault}", path) from fault


# ---- names
@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Yield a name for `target` while it is being written, which no other call uses; nothing is made."""
    name = _sibling(target, "tmp")
    _in_use.add(name.name)
    try:
        yield name
    finally:
        _in_use.discard(name.name)


def _sibling(target: Path, kind: str) -> Path:
    return target.with_name(f".{_short(target.name)}.{_machine()}-{os.getpid()}-{os.urandom(4).hex()}.{kind}")


def _short(name: str) -> str:
    """Return a name cut to what leaves room for the rest of a temporary name."""
    most = _MOST_NAME_BYTES - len(f"..{'f' * 6}-{2**32}-{'f' * 8}.tmp")
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


@cache
def _machine() -> str:
    """Return six digits for the machine, or container, within which a process number means one process."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:6]


# ---- files
def _is_device(path: Path) -> bool:
    """Tell whether a path is there and neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _make_empty(path: Path) -> int:
    """Make a file, and the folders above it where they are missing; return the mode that the umask gives it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o666)
    except (FileNotFoundError, NotADirectoryError):
        _make_folder(path.parent)
        descriptor = os.open(path, flags, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


# ---- leftovers
def _is_abandoned(entry: Path, found: re.Match[str]) -> bool:
    process = found.groupdict().get("process")
    if process is not None and found["machine"] == _machine():
        if int(process) == os.getpid():
            return entry.name not in _in_use
        if not _is_alive(int(process)):
            return True
    return time.time() - _last_change(entry) > ABANDONED_SECONDS


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there, asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True


def _last_change(entry: Path) -> float:
    """Return the newest time of change of a file, or of anything in a folder; now, where it vanishes meanwhile."""
    try:
        newest = entry.lstat().st_mtime
        for folder, _, names in os.walk(entry):
            inside = [folder, *(os.path.join(folder, name) for name in names)]
            newest = max(newest, *(os.lstat(path).st_mtime for path in inside))
    except OSError:
        return time.time()
    return newest


# ---- folders
def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as fault:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from fault


def _move_in(fresh: Path, target: Path) -> None:
    """Give a folder its name, where there is nothing yet or an empty folder."""
    with suppress(FileNotFoundError):
        target.rmdir()  # not every system renames onto an empty folder
    fresh.rename(target)


def _swap_in(fresh: Path, target: Path) -> None:
    """Put the folder `fresh` in the place of `target`; what only `target` holds moves over."""
    replaced: list[Path] = []
    try:
        with _SWAPPING:
            for _ in range(_MOST_SWAPS):  # another process may do the same at this moment
                try:
                    _move_in(fresh, target)
                    break
                except OSError as fault:
                    if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                replaced.append(_sibling(target, "old"))
                _in_use.add(replaced[-1].name)
                with suppress(FileNotFoundError):
                    target.rename(replaced[-1])
            else:
                raise FileExistsError(errno.EEXIST, f"replaced {_MOST_SWAPS} times meanwhile")
            for old in filter(Path.exists, replaced):
                _put_back(old, target)
    except BaseException:  # Ctrl-C too
        for old in filter(Path.exists, replaced):
            if not os.path.lexists(target):
                old.rename(target)
        raise
    finally:
        _in_use.difference_update(old.name for old in replaced)


def _put_back(old: Path, target: Path) -> None:
    """Move what only `old` holds to `target`, or give it that name where there is nothing; remove the rest."""
    if not os.path.lexists(target):
        old.rename(target)
        return
    for entry in list(old.iterdir()):
        if not os.path.lexists(target / entry.name):
            entry.rename(target / entry.name)
    shutil.rmtree(old)


# ---- the disk
def _tree_to_disk(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _to_disk(Path(place, name))
        _to_disk(Path(place))


def _to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # written by us, yet not readable: a umask without reading
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # which some file systems cannot do
            raise
    finally:
        os.close(descriptor)


# ---- errors
@contextmanager
def _named(error: type[SegAtlasError] | None, path: str | Path, target: Path) -> Iterator[None]:
    """Turn an OSError into an error that names what cannot be written, and the other file at fault where it is one."""
    try:
        yield
    except OSError as fault:
        if error is None:
            raise
        reason = fault.strerror or str(fault)
        other = Path(os.path.abspath(fault.filename)) if isinstance(fault.filename, str) else target
        if other != target and not any(map(_OURS.fullmatch, other.parts)):
            reason += f" ({fault.filename})"
        raise _error(error, f"cannot be written: {reason}", path) from fault


def _error(kind: type[SegAtlasError], message: str, path: str | Path) -> SegAtlasError:
    return kind(message, path) if issubclass(kind, DataError) else kind(f"{path}: {message}")


def _looks_like(content: bytes) -> str:
    """Say what bytes that are not UTF-8 text seem to be."""
    head = content[:4096]
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    if head and head.count(0) * 3 >= len(head) and not (head[::2].strip(b"\0") and head[1::2].strip(b"\0")):
        return "UTF-16 without a byte order mark"
    if any(byte < 32 and byte not in b"\t\n\r\f\v\x1a\x1b" for byte in head):
        return "a binary file"
    return "Latin-1, Windows-1252 or another older encoding"


def near_paths(path: str | Path, most: int = 3) -> list[Path]:
    """Return what is there under names like those of a path that is not there, the nearest first.

    The first part that is missing is replaced, then the next one; all else of the path is as it was given.
    """
    parts = Path(path).expanduser().parts
    known = next((n for n in range(len(parts)) if not os.path.lexists(Path(*parts[: n + 1]))), len(parts))
    home = Path(*parts[:known])
    if known == len(parts) or not home.is_dir():
        return []
    try:
        names = sorted(entry.name for entry in home.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    found: list[Path] = []
    for name in difflib.get_close_matches(parts[known], names, n=most):
        other = (home / name).joinpath(*parts[known + 1 :])
        found += [other] if os.path.lexists(other) else near_paths(other, most)
    return found[:most]
