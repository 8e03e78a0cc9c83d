"""Download one file: resumed where it broke off, checked against its hash, complete or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from segatlas.errors import WeightsError

LOGGER = logging.getLogger("segatlas")

ATTEMPTS = 4
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as stalled."""

PAUSE = 1.0
"""Seconds before the second attempt, doubled before each further one."""

_BLOCK = 1 << 20

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes of the whole file, None where the server does not say."""


class _Gone(Exception):
    """The server says that there is no such file; another attempt would not help."""


def download(url: str, file: Path, *, sha256: str, report: Report | None = None) -> Path:
    """Fetch `url` to `file`, which appears complete and checked or not at all.

    What arrived before a break stays in `FILE.part`, where the next attempt, or the next call, goes on.

    Args:
        url: http or https.
        file: where to; its folder is made.
        sha256: hash of the file, or its first digits.
        report: is told the progress.

    Raises:
        WeightsError: not there, no connection after several attempts, another hash, or the disk is full.
    """
    part = file.with_name(f"{file.name}.part")
    fault = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
                LOGGER.warning("%s: %s; attempt %d of %d", url, fault, attempt + 1, ATTEMPTS)
            try:
                _fetch(url, part, report)
            except _Gone as error:
                raise WeightsError(f"{url}: {error}") from None
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                fault = _reason(error)
                continue
            found = sha256_of(part)
            if found.startswith(sha256):
                os.replace(part, file)
                return file
            part.unlink()
            fault = f"its sha256 begins with {found[:8]}, published is {sha256}"
    except OSError as error:
        raise WeightsError(f"{file}: cannot be written ({error.strerror or error})") from error
    raise WeightsError(f"{url}: cannot be downloaded after {ATTEMPTS} attempts ({fault})")


def _fetch(url: str, part: Path, report: Report | None) -> None:
    """Get the rest of a file into `part`. Raises ConnectionError where fewer bytes came than announced."""
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    with _opened(request, part) as response:
        if response is None:  # all of it is there
            return
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        begun = begun if goes_on else 0
        length = response.headers.get("Content-Length")
        whole = begun + int(length) if length else None
        with part.open("ab" if goes_on else "wb") as out:
            _copy(response, out, begun, whole, report)
    got = part.stat().st_size
    if whole is not None and got < whole:
        raise ConnectionError(f"broke off after {got} of {whole} bytes")


@contextmanager
def _opened(request: urllib.request.Request, part: Path) -> Iterator[http.client.HTTPResponse | None]:
    """Open a request; None where the server has nothing beyond what `part` holds already."""
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            yield None
            return
        if 400 <= error.code < 500 and error.code not in (408, 429):
            part.unlink(missing_ok=True)
            raise _Gone(f"the server answers {error.code} {error.reason}") from None
        raise ConnectionError(f"the server answers {error.code} {error.reason}") from None
    with response:
        yield response


def _copy(
    response: http.client.HTTPResponse, out: BinaryIO, begun: int, whole: int | None, report: Report | None
) -> None:
    done = begun
    while block := response.read1(_BLOCK):  # what is there: `read` would lose it where the connection stalls
        out.write(block)
        done += len(block)
        if report is not None:
            report(done, whole)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return f"no connection: {error.reason}"
    if isinstance(error, TimeoutError):
        return f"no byte for {TIMEOUT:g} seconds"
    return str(error) or type(error).__name__


def sha256_of(file: Path) -> str:
    """Return the hash of a file as hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
