"""Which files of a folder are images: one answer for `predict`, for datasets and for `data check`.

Hidden entries and what systems leave behind (`._a.png`, `__MACOSX`, `.ipynb_checkpoints`, `Thumbs.db`) are skipped.
Everything else is either an image by its ending, whatever it turns out to be when it is read, or a file that the
caller has to name as not read. Links are followed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segatlas.data.formats.guards import IMAGE_ENDINGS
from segatlas.errors import DataError, UsageError

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
"""Names, in lower case, of what systems write into folders beside the user's files."""


class NamedImages(NamedTuple):
    """The images that a file, a folder or a glob stands for.

    images: (file, name) each; the name has no ending, and below a folder, or the fixed part of a glob, the sub-folders.
    not_read: other files there.
    """

    images: list[tuple[Path, str]]
    not_read: list[Path]


def is_several(source: str | Path) -> bool:
    """Tell whether a word stands for a folder of images or a glob; a file of that very name is itself."""
    return os.path.isdir(source) or (not os.path.lexists(source) and glob.has_magic(str(source)))


def images_of(source: str | Path, without: Path | None = None) -> NamedImages:
    """Return the images that a word stands for, sorted; hidden ones are left out.

    Args:
        source: a file, a folder with everything below it, or a glob (`**` goes through folders).
        without: a folder whose files are left out, such as that of the results.

    Raises:
        UsageError: nothing there, or no image in it.
    """
    path = Path(source)
    if path.is_file():
        return NamedImages([(path, path.stem)], [])
    if path.is_dir():
        root, files = path, list(walk_files(path))
    elif glob.has_magic(str(source)):
        root = _fixed_part(path)
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
        files = [file for file in found if not (file.is_dir() or any(map(is_hidden, file.relative_to(root).parts)))]
    else:
        raise UsageError(f"no such file or folder: {source}")
    if without is not None:
        results = Path(os.path.realpath(without))
        files = [file for file in files if results not in Path(os.path.realpath(file)).parents]
    images = sorted(file for file in files if is_image_name(file))
    if not images:
        raise UsageError(f"no images in {source} (looked for {' '.join(IMAGE_ENDINGS)})")
    named = [(file, file.relative_to(root).with_suffix("").as_posix()) for file in images]
    return NamedImages(named, sorted(file for file in files if not is_image_name(file)))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped wherever images are listed."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image_name(name: str | Path) -> bool:
    """Whether a file of this name is taken for an image: by its ending, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all entries below a folder that are no folders, sorted by folder; hidden ones are left out.

    Broken links are among them, and folders that are called like an image: reading them says what they are. Of a
    missing folder nothing is yielded.

    Raises:
        DataError: a folder that cannot be read.
    """
    for path, _ in _walk(folder, "", frozenset()):
        yield path


def list_images(folder: Path) -> dict[str, list[Path]]:
    """Return the image files below a folder by key (relative path without ending), sorted; hidden ones left out."""
    found: dict[str, list[Path]] = {}
    for path, name in _walk(folder, "", frozenset()):
        if is_image_name(name):
            found.setdefault(os.path.splitext(name)[0], []).append(path)
    return dict(sorted(found.items()))


def has_images(folder: Path) -> bool:
    """Whether there is an image file below a folder; False where there is no such folder."""
    return folder.is_dir() and any(map(is_image_name, walk_files(folder)))


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _walk(folder: Path, below: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """Yield the entries of a folder and those below it, each with its path under the first folder, as POSIX has it."""
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
            folders.append(entry.name)
        else:
            yield folder / entry.name, below + entry.name
    for name in folders:
        yield from _walk(folder / name, f"{below}{name}/", above | {here})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False
