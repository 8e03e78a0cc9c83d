"""Images at addresses, http and https: fetched when they are asked for, checked, and kept for a day.

A copy lies in the cache (`SEGATLAS_CACHE`, folder `images`) under a hash of its address. A newer one than MOST_AGE is
taken without asking the server; where downloads are off, one of any age is. What is no image is not kept.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from pathlib import Path

from segatlas.cache import cache_folder, is_offline
from segatlas.data.formats.guards import open_image
from segatlas.data.formats.pnm import is_pnm
from segatlas.data.formats.tiff import is_tiff
from segatlas.downloads.http import download, only_one, redacted
from segatlas.errors import DataError, WeightsError

MOST_IMAGE_BYTES = 256 << 20
"""Of one image: the largest photographs have a tenth of it."""

MOST_AGE = 24 * 3600.0
"""Seconds that a copy stands for what is at its address."""

_PAGE = re.compile(
    rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title|script)\b", re.IGNORECASE | re.DOTALL
)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def is_address(source: object) -> bool:
    """Tell whether something is the address of a file, http or https."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def shown_address(address: str) -> str:
    """Return an address as it may be shown: without name, password and query, which may be secrets."""
    return redacted(address).partition("?")[0].partition("#")[0]


def fetch_image(address: str, *, offline: bool = False) -> bytes:
    """Return the content of the image file at an address.

    Args:
        address: http or https; a name and password in it are sent and never shown.
        offline: ask no server; so does `SEGATLAS_OFFLINE`.

    Raises:
        DataError: no connection, nothing there, larger than MOST_IMAGE_BYTES, a web page or something else that is no
            image, or offline and no copy there.
    """
    name = shown_address(address)
    file = cache_folder("images") / hashlib.sha256(address.encode()).hexdigest()[:32]
    if offline or is_offline():
        if (kept := _kept(file)) is None:
            raise DataError(
                f"{name}: downloads are off (offline=True, SEGATLAS_OFFLINE), and no copy of it is in {file.parent}"
            )
        return kept
    try:
        with only_one(file):
            kept = _kept(file, MOST_AGE)
            return _fetched(address, file, name) if kept is None else kept
    except WeightsError as error:
        raise DataError(str(error)) from None
    except OSError as error:
        raise DataError(f"{name}: cannot be kept in {file.parent} ({error.strerror or error})") from error


def _fetched(address: str, file: Path, name: str) -> bytes:
    """Return what is at an address, kept in `file` if it is an image."""
    new = file.with_name(f"{file.name}.new")
    try:
        content = download(address, new, sha256=None, most_bytes=MOST_IMAGE_BYTES).read_bytes()
        _check(content, name)
        os.replace(new, file)
    finally:
        new.unlink(missing_ok=True)
    return content


def _kept(file: Path, most_age: float = math.inf) -> bytes | None:
    """Return the copy that is there, None where there is none or it is too old."""
    try:
        return file.read_bytes() if time.time() - file.stat().st_mtime < most_age else None
    except OSError:
        return None


def _check(content: bytes, name: str) -> None:
    """Raise DataError where what came is no image."""
    if not content:
        raise DataError(f"{name}: the server sends an empty file")
    if _PAGE.match(content.removeprefix(b"\xef\xbb\xbf")[:4096]):
        raise DataError(f"{name}: is a web page, no image; give the address of the image file that the page shows")
    if not (is_tiff(content) or is_pnm(content)):
        open_image(content, name).close()
