"""Download one file: resumed where it broke off, checked against its hash, complete or not there at all.

Of several processes that want one file, one fetches it and the others wait for it. No server can keep a download from
ending: one that sends too little in too long a time is cut off, and so is one that sends too much.
"""

from __future__ import annotations

import base64
import http.client
import logging
import os
import re
import shutil
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from filelock import FileLock, Timeout

from segatlas.errors import WeightsError
from segatlas.files import sha256 as sha256_of

LOGGER = logging.getLogger("segatlas")

ATTEMPTS = 4
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as stalled."""

WINDOW, LEAST_BYTES = 60.0, 64 << 10
"""Seconds, and the bytes that have to arrive in them."""

MOST_BYTES = 16 << 30
"""No file is larger: the largest published weights have a few gigabytes."""

BYTES_A_NUMBER, OTHER_BYTES = 4 * 4, 16 << 20
"""For each number of a network: float32, four times, for a checkpoint that still has its training state (the weights, a
moving average of them and the two moments of Adam). Beside these: a configuration, class names, the archive's table."""

PAUSE = 1.0
"""Seconds before the second attempt, doubled before each further one."""

_BLOCK = 1 << 20
_ANOTHER_FILE = "; it is another file than the published one: use another server"
_SCHEMES = ("http", "https")
_WITH_SCHEME = re.compile(r"\w[\w+.-]*://")

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the whole file, None where the server does not say."""


class _GoneError(Exception):
    """Another attempt would not help: there is no such file, or it is not one that is taken."""


class _TooLargeError(_GoneError):
    """More than is taken."""


class _BrokenError(Exception):
    """The connection failed or brought too little; what is there is kept for another attempt."""


def download(
    url: str, file: Path, *, sha256: str | None, most_bytes: int = MOST_BYTES, report: Report | None = None
) -> Path:
    """Fetch `url` to `file`, which appears complete and checked or not at all.

    What arrived before a break stays in `FILE.part`, where the next attempt, or the next call, goes on. Without a hash
    nobody could tell whether the rest is of the same file: each attempt begins anew, and a `file` that is there goes.

    Args:
        url: http or https; a name and password in it are sent and never shown.
        file: where to; its folder is made.
        sha256: hash of the file, or its first digits; None = not known.
        most_bytes: a larger file is refused: before its first byte where the server says how large it is, else when
            one byte more has come. See `most_bytes_of`.
        report: is told the progress.

    Raises:
        WeightsError: not there, no connection after several attempts, too slow, too large, another hash, a folder in
            the way, or the disk is full.
    """
    part = file.with_name(f"{file.name}.part")
    fault = ""
    try:
        for place in (file, part, _lock(file)):
            if place.is_dir() and not place.is_symlink():
                raise WeightsError(f"{place}: a folder is in the way of the file to download; move or delete it")
        with only_one(file):
            if sha256 is not None and file.is_file() and sha256_of(file, error=WeightsError).startswith(sha256):
                return file  # fetched by another process meanwhile
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(PAUSE * 2 ** (attempt - 1))
                    LOGGER.warning("%s: %s; attempt %d of %d", _shown(url), fault, attempt + 1, ATTEMPTS)
                if sha256 is None:
                    part.unlink(missing_ok=True)
                try:
                    _fetch(url, part, most_bytes, report)
                except _GoneError as error:
                    part.unlink(missing_ok=True)
                    advice = _ANOTHER_FILE if isinstance(error, _TooLargeError) and sha256 is not None else ""
                    raise WeightsError(f"{_shown(url)}: {error}{advice}") from None
                except _BrokenError as error:
                    fault = redacted(str(error))
                    continue
                if sha256 is None:
                    os.replace(part, file)
                    return file
                found = sha256_of(part, error=WeightsError)
                if found.startswith(sha256):
                    os.replace(part, file)
                    return file
                part.unlink()
                fault = f"its sha256 begins with {found[:8]}, published is {sha256}"
    except OSError as error:
        raise WeightsError(f"{file}: cannot be written ({error.strerror or error})") from error
    if sha256 is None:
        part.unlink(missing_ok=True)
    raise WeightsError(f"{_shown(url)}: cannot be downloaded after {ATTEMPTS} attempts ({fault})")


def most_bytes_of(numbers: int) -> int:
    """Return how large a weights file may be that is published for a network.

    Args:
        numbers: how many numbers the network's tensors hold.
    """
    return BYTES_A_NUMBER * numbers + OTHER_BYTES


@contextmanager
def only_one(place: Path) -> Iterator[None]:
    """Let one process, and one thread of it, at a time work on `place`; the others wait. Raises OSError.

    The lock is a sidecar file, held by the system: it is free again when its process is gone.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock(place))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        LOGGER.info("%s: another process is fetching it; waiting for that", place.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _lock(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def redacted(text: str) -> str:
    """Return text in which no address shows a name, a password or a query: these may be secrets.

    A password may hold blanks, quotation marks and more: all up to the last @ counts as one.
    """
    text = re.sub(r"((?:\w[\w+.-]*:)?//).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1?***", text, flags=re.IGNORECASE)


def _shown(url: str) -> str:
    """Return an address as it may be shown; one without a scheme too."""
    return redacted(url if _WITH_SCHEME.match(url) else f"//{url}")


# ---- one attempt
def _fetch(url: str, part: Path, most_bytes: int, report: Report | None) -> None:
    """Get the rest of a file into `part`."""
    begun = _bytes_in(part)
    if begun > most_bytes:
        part.unlink()
        begun = 0
    with _StallWatch() as watch, _response(url, begun, watch) as response:
        if response is None:  # all of it is there
            return
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            begun = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
            part.unlink(missing_ok=True)
            raise _BrokenError("the server goes on from another byte than asked for")
        whole = None if response.length is None else begun + response.length
        if whole is not None and whole > most_bytes:
            raise _TooLargeError(f"announces {whole} bytes, at most {most_bytes} are taken")
        free = shutil.disk_usage(part.parent).free
        if response.length is not None and response.length > free:
            raise WeightsError(f"{part}: no room: {response.length} bytes are missing, {free} are free on this disk")
        with _opened(part, begun) as out:
            done = _copy(response, out, watch, begun, whole, most_bytes, report)
    if watch.fault:
        raise _BrokenError(watch.fault)
    if whole is not None and done < whole:
        raise _BrokenError(f"broke off after {done} of {whole} bytes")


@contextmanager
def _response(url: str, begun: int, watch: _StallWatch) -> Iterator[http.client.HTTPResponse | None]:
    """Ask for a file from byte `begun` on; None where the server has nothing beyond."""
    try:
        response = _opener(watch).open(_request(url, begun), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
            yield None
            return
        if 300 <= error.code < 400:
            where = redacted(error.headers.get("Location", "nowhere"))
            raise _GoneError(f"the server redirects to {_printable(where)}, which is not followed") from None
        answer = f"the server answers {error.code} {_printable(str(error.reason))}"
        if 400 <= error.code < 500 and error.code not in (408, 429):
            raise _GoneError(answer) from None
        raise _BrokenError(answer) from None
    except (ValueError, http.client.InvalidURL):
        raise _GoneError("not a valid address") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(watch.fault or _reason(error)) from None
    with response:
        yield response


def _request(url: str, begun: int) -> urllib.request.Request:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise _GoneError("only addresses that begin with http:// or https:// are fetched")
    who, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    if who:  # not passed on to where the server may redirect
        encoded = base64.b64encode(unquote(who).encode()).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def _copy(
    response: http.client.HTTPResponse,
    out: BinaryIO,
    watch: _StallWatch,
    done: int,
    whole: int | None,
    most_bytes: int,
    report: Report | None,
) -> int:
    """Write what comes; return the bytes that are there then."""
    while True:
        try:
            block = response.read1(_BLOCK)  # what is there: `read` would lose it where the connection stalls
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(watch.fault or _reason(error)) from None
        if not block:
            break
        done += len(block)
        watch.count(len(block))
        if done > most_bytes:
            raise _TooLargeError(f"sends more than {most_bytes} bytes, which is all that is taken")
        out.write(block)
        if report is not None:
            report(done, whole)
    out.flush()
    os.fsync(out.fileno())
    return done


# ---- the part file
def _bytes_in(part: Path) -> int:
    """Return how much of a file is there. What is no plain file of one name alone is removed, not written through."""
    try:
        found = part.lstat()
    except FileNotFoundError:
        return 0
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return found.st_size
    LOGGER.warning("%s: a link, or no plain file; removed", part)
    part.unlink()
    return 0


def _opened(part: Path, begun: int) -> BinaryIO:
    how = os.O_APPEND if begun else os.O_TRUNC
    flags = os.O_WRONLY | os.O_CREAT | how | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, 0o666), "ab" if begun else "wb")


# ---- the connection
class _StallWatch:
    """Cuts off a connection that brings fewer than LEAST_BYTES in WINDOW seconds, from its first header on.

    A timeout for each byte does not do: a server that sends a byte now and then never meets it.
    """

    def __init__(self) -> None:
        self.fault = ""
        self._bytes = 0
        self._socket: socket.socket | None = None
        self._done = threading.Event()

    def __enter__(self) -> _StallWatch:
        threading.Thread(target=self._run, name="segatlas-download", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()

    def watch(self, connection: socket.socket) -> None:
        """Take over a connection; a redirect opens another one."""
        self._socket = connection

    def count(self, received: int) -> None:
        """Note bytes that have arrived."""
        self._bytes += received

    def _run(self) -> None:
        before = 0
        while not self._done.wait(WINDOW):
            came, before = self._bytes - before, self._bytes
            if came < LEAST_BYTES and self._socket is not None:
                self.fault = f"too slow: {came} bytes in {WINDOW:g} seconds"
                with suppress(OSError):  # the plain socket below an encrypted one, which another thread is reading
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, watch: _StallWatch, **options: Any):
        super().__init__(*args, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.watch(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, watch: _StallWatch, **options: Any):
        super().__init__(*args, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch.watch(self.sock)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: _StallWatch):
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, watch=self._watch), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: _StallWatch):
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, watch=self._watch), req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same scheme, or from http to https."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new: SplitResult = urlsplit(newurl)
        if new.scheme != "https" and new.scheme != req.type:
            where = _printable(redacted(newurl))
            raise _GoneError(f"the server redirects to {where}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(watch: _StallWatch) -> urllib.request.OpenerDirector:
    """Return what opens http and https and nothing else, neither files nor ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        _Http(watch),
        _Https(watch),
    ):
        opener.add_handler(handler)
    return opener


# ---- words
def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    if isinstance(error, TimeoutError):
        return f"no byte for {TIMEOUT:g} seconds"
    return _printable(str(error)) or type(error).__name__


def _printable(text: str) -> str:
    """Return what a server said, short and without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]
