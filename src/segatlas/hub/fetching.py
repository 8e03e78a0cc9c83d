"""From a catalogue name to a model folder: download once, convert once, then work offline."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segatlas.cache import cache_folder, is_offline
from segatlas.checkpoint.card import CARD_FILE
from segatlas.conversion.converting import convert_file
from segatlas.downloads.http import download, most_bytes_of, only_one
from segatlas.errors import WeightsError
from segatlas.files import sha256, sweep_leftovers
from segatlas.hub.catalogue import Published, find_published

LOGGER = logging.getLogger("segatlas")

HOST = "https://download.openmmlab.com/"
"""Beginning of the published addresses; `SEGATLAS_MIRROR` stands in for it."""


def fetch_published(name: str, *, offline: bool = False, commercial_ok: bool = False) -> Path:
    """Return the model folder of a catalogue entry, downloaded and converted when it is first asked for.

    A file that lies in the downloads folder under its published name, put there by hand, is taken as if downloaded.

    Args:
        name: name or file of an entry.
        offline: download nothing; so does the environment variable `SEGATLAS_OFFLINE`, set to anything but 0.
        commercial_ok: refuse weights whose licence forbids commercial use; so does `SEGATLAS_COMMERCIAL_OK=1`.

    Raises:
        UsageError: no such entry.
        WeightsError: refused, offline and not there, or the download failed.
    """
    entry = find_published(name)
    if (commercial_ok or _is_on("SEGATLAS_COMMERCIAL_OK")) and not entry.is_commercial:
        raise WeightsError(f"{entry.name}: refused, commercial use is asked for, but its licence is: {entry.licence}")
    folder = cache_folder("models") / f"{entry.file}-{entry.sha256}"
    if not (folder / CARD_FILE).is_file():
        by_hand = f"get {entry.url} by other means and put it at {_place(entry)}"
        if (offline or is_offline()) and not _place(entry).is_file():
            raise WeightsError(f"{entry.name}: is not in the cache and downloads are off; {by_hand}")
        with _only_one_makes(folder):
            if not (folder / CARD_FILE).is_file():  # made by another process meanwhile
                sweep_leftovers(folder.parent)
                file = _file(entry, by_hand)
                convert_file(file, folder, arch=entry.architecture, licence=entry.licence, metric=_metric(entry))
                LOGGER.info("%s: kept in %s", entry.name, folder)
    LOGGER.info("%s: licence %s; trained on %s, whose terms apply too", entry.name, entry.licence, entry.dataset)
    return folder


def address(entry: Published) -> str:
    """Return where an entry is fetched from: its published address, or the same path below the mirror."""
    mirror = os.environ.get("SEGATLAS_MIRROR")
    if not mirror:
        return entry.url
    base, mark, query = mirror.partition("?")
    return f"{base.rstrip('/')}/{entry.url.removeprefix(HOST)}{mark}{query}"


def _place(entry: Published) -> Path:
    return cache_folder("downloads") / entry.url.rpartition("/")[2]


def _file(entry: Published, by_hand: str) -> Path:
    file = _place(entry)
    if file.is_file():
        found = sha256(file, error=WeightsError)
        if not found.startswith(entry.sha256):
            raise WeightsError(
                f"{file}: its sha256 begins with {found[:8]}, published is {entry.sha256}; the file is incomplete or "
                "another one: delete it"
            )
        return file
    try:
        from segatlas.safe_console import progress_bar  # loads rich, which predicting does without

        with progress_bar(entry.name, in_bytes=True) as bar:
            most_bytes = most_bytes_of(entry.numbers)
            return download(address(entry), file, sha256=entry.sha256, most_bytes=most_bytes, report=bar.report)
    except WeightsError as error:
        raise WeightsError(f"{entry.name}: {error}; {by_hand}") from error


@contextmanager
def _only_one_makes(folder: Path) -> Iterator[None]:
    place = cache_folder("downloads") / f"{folder.name}.model"
    try:
        with only_one(place):
            yield
    except OSError as error:
        raise WeightsError(f"{place.parent}: cannot be written ({error.strerror or error})") from error


def _metric(entry: Published) -> dict[str, object]:
    metric: dict[str, object] = {name: percent / 100 for name, percent in entry.metrics.items()}
    if entry.miou_ms_flip is not None:
        metric["miou_ms_flip"] = entry.miou_ms_flip / 100
    return {**metric, "split": f"{entry.dataset} val", "published_in": f"{entry.source}, {entry.config}"}


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
