"""Which files of a folder are images: one answer for `predict`, for datasets and for `data check`.

Hidden entries and what systems leave behind (`._a.png`, `__MACOSX`, `.ipynb_checkpoints`, `Thumbs.db`) are skipped.
Everything else is either an image by its ending, whatever it turns out to be when it is read, or a file that the
caller has to name as not read. Links are followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from segatlas.data.formats.guards import IMAGE_ENDINGS
from segatlas.errors import DataError

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
"""Names, in lower case, of what systems write into folders beside the user's files."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped wherever images are listed."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image_name(name: str | Path) -> bool:
    """Whether a file of this name is taken for an image: by its ending, in upper or lower case."""
    return Path(name).suffix.lower() in IMAGE_ENDINGS


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all entries below a folder that are no folders, sorted by folder; hidden ones are left out.

    Broken links are among them, and folders that are called like an image: reading them says what they are. Of a
    missing folder nothing is yielded.

    Raises:
        DataError: a folder that cannot be read.
    """
    yield from _walk(folder, frozenset())


def list_images(folder: Path) -> dict[str, list[Path]]:
    """Return the image files below a folder by key (relative path without ending), sorted; hidden ones left out."""
    found: dict[str, list[Path]] = {}
    for path in walk_files(folder):
        if is_image_name(path):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return dict(sorted(found.items()))


def has_images(folder: Path) -> bool:
    """Whether there is an image file below a folder; False where there is no such folder."""
    return folder.is_dir() and any(map(is_image_name, walk_files(folder)))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        stat = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror or error}", folder) from error
    here = (stat.st_dev, stat.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    folders = []
    for entry in entries:
        if is_hidden(entry.name):
            continue
        if not is_image_name(entry.name) and _is_folder(entry):
            folders.append(folder / entry.name)
        else:
            yield folder / entry.name
    for below in folders:
        yield from _walk(below, above | {here})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False
