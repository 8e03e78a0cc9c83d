"""A result under a name of the caller's choice: the name says the kind, as the names of `segatlas predict` do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from segatlas.errors import TaskError, UsageError
from segatlas.output.kinds import ALWAYS_PNG, MOVING, all_kinds, ending_of, write
from segatlas.output.kinds import record as record_of
from segatlas.output.options import WriterOptions
from segatlas.tasks import TASKS

if TYPE_CHECKING:
    from segatlas.structures import ImageResult

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Formats of images to look at."""

FILE_SUFFIXES = (*IMAGE_SUFFIXES, *sorted({Path(f"a{ending_of(kind)}").suffix for kind in all_kinds()} - {".png"}))
"""Of files that a result is written to."""

NAMELESS = "image"
"""What files of an image without a name are called by."""


def save_result(
    result: ImageResult, path: str | Path, kinds: str | Sequence[str] | None = None, *, name: str | None = None
) -> list[Path]:
    """Write a result to a file whose name says the kind, or as several files into a folder; return what was written.

    A file's kind is what its name ends with, as `segatlas predict` ends the names of results: `a_mask.png`,
    `a_confidence.png`, `a.json`, `a_coco.json`, `a.geojson`, and so on; `mask.png` alone is one, too. Any other image
    is the overlay. Without a suffix, with a slash at its end, or where there is a folder, the path is a folder: files
    in it are called by the stem of the image's file, one for each of `kinds`, by default the first two of the task.

    Args:
        result: of an image.
        path: where to; folders are made.
        kinds: one kind or several, in place of what the name says; a file takes one.
        name: stem of the files in a folder, in place of the image's.

    Raises:
        UsageError: a name that says no kind, a kind that the result's task has no file for, or the image's own file.
        TaskError: the result does not hold what the kind shows.
        DataError: it cannot be written.
    """
    task = task_of(result)
    wanted = (kinds,) if isinstance(kinds, str) else None if kinds is None else tuple(kinds)
    for kind in wanted or ():
        _require(kind, task, str(path))
    if is_folder(path):
        stem = stem_of(result.source) or NAMELESS if name is None else name
        targets = {kind: Path(path) / f"{stem}{ending_of(kind)}" for kind in wanted or TASKS[task].writers[:2]}
    else:
        targets = {_kind_of(Path(path), wanted, task): Path(path)}
    for target in targets.values():
        _spare_image(target, result.source)
    for kind, target in targets.items():
        write(task, kind, result, target, WriterOptions(model=result.model))
    return list(targets.values())


class FolderOfResults:
    """Writes one result after the other into a folder, under names of their own."""

    def __init__(self, folder: str | Path, kinds: str | Sequence[str] | None = None):
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise UsageError(f"{folder}: is a file; several results go into a folder")
        if not os.path.isdir(folder) and Path(folder).suffix.lower() in FILE_SUFFIXES:
            raise UsageError(f"{folder}: is the name of a file; several results go into a folder")
        self.folder, self.kinds = Path(folder), kinds
        self._sources: dict[str, str] = {}

    def claim(self, name: str, source: str) -> None:
        """Keep a name for an image; UsageError where another image's results have it already."""
        other = self._sources.setdefault(name, source)
        if other != source:
            raise UsageError(
                f"{other or NAMELESS} and {source or NAMELESS} would both be written to {self.folder / name}_*; save "
                "them into different folders"
            )

    def save(self, result: ImageResult, name: str) -> list[Path]:
        """Write a result under a name, see `claim`."""
        self.claim(name, result.source)
        return save_result(result, f"{self.folder}{os.sep}", self.kinds, name=name)


def result_names(sources: Sequence[str]) -> list[str]:
    """Return what the results of several images are called by: stems of their files, in order.

    Where two have the same one, all have the folders below the one that they have in common before it. Images without a
    name are numbered from 1 by their place.
    """
    stems = [stem_of(source) or f"{NAMELESS}_{number}" for number, source in enumerate(sources, start=1)]
    files = [source for source in sources if source and "://" not in source]
    if len(set(stems)) == len(set(zip(stems, sources, strict=True))) or not files:
        return stems
    common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return [
        PurePath(os.path.relpath(os.path.abspath(source), common)).with_suffix("").as_posix()
        if source and "://" not in source
        else stem
        for source, stem in zip(sources, stems, strict=True)
    ]


def result_record(result: ImageResult) -> dict[str, Any]:
    """Return what the kind "json" writes, as plain data."""
    return record_of(task_of(result), result, WriterOptions(model=result.model), stem_of(result.source) or NAMELESS)


def task_of(result: ImageResult) -> str:
    """Return the task whose results hold what this one does. TaskError where it holds nothing."""
    fits = [task for task in TASKS.values() if set(task.result) <= set(result.given)]
    if not fits:
        raise TaskError(f"a result with {', '.join(result.given) or 'nothing in it'} cannot be written")
    return max(fits, key=lambda task: len(task.result)).name


def stem_of(source: str) -> str:
    """Return the stem of a file's name, or of an address's; "" where there is none."""
    stem = PurePath(unquote(source) if "://" in source else source).stem
    return "".join("_" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in stem).strip(". ")


def is_folder(path: str | Path) -> bool:
    """Tell whether a path means a folder: there is one, it ends with a slash, or it has no suffix."""
    path = os.fspath(path)
    if os.path.isdir(path) or path.endswith(("/", os.sep)):
        return True
    return not os.path.lexists(path) and not Path(path).suffix


def _kind_of(path: Path, wanted: Sequence[str] | None, task: str) -> str:
    """Return the kind that a file is to have. UsageError where its name does not suit it."""
    name, suffix = path.name.lower(), path.suffix.lower()
    if wanted is not None:
        if len(wanted) != 1:
            raise UsageError(f"{path}: one file for {len(wanted)} kinds ({', '.join(wanted)}); name a folder")
        kind = wanted[0]
    else:
        kind = _named_kind(path, task)
        _require(kind, task, str(path))
    own = Path(f"a{ending_of(kind)}").suffix
    if suffix == own or (kind in MOVING and suffix in IMAGE_SUFFIXES):
        return kind
    why = "written without loss, as .png" if kind in ALWAYS_PNG else f"a {own} file"
    raise UsageError(f"{path}: {kind} is {why}; got {suffix or name}")


def _named_kind(path: Path, task: str) -> str:
    """Return the kind that a name says, the longest word first."""
    name, suffix = path.name.lower(), path.suffix.lower()
    for kind in sorted(all_kinds(), key=lambda kind: -len(ending_of(kind))):
        ending = ending_of(kind)
        word = Path(f"a{ending}").stem.removeprefix("a")  # "_mask", "_coco", or nothing
        said = bool(word) and (path.stem.lower().endswith(word) or path.stem.lower() == word.removeprefix("_"))
        if (said and suffix in (*IMAGE_SUFFIXES, Path(ending).suffix)) or (not word and name.endswith(ending)):
            return kind
    if suffix in IMAGE_SUFFIXES:
        return "overlay"
    raise UsageError(f"{path}: no file of a result ends with {suffix or name!r}; possible are {_possible(task)}")


def _require(kind: str, task: str, path: str) -> None:
    if kind not in TASKS[task].writers:
        what = f"{kind!r} is no kind" if kind not in all_kinds() else f"a result of the task {task} has no {kind}"
        raise UsageError(f"{path}: {what}; possible are {_possible(task)}")


def _possible(task: str) -> str:
    """Return the kinds of a task with the names that say them."""
    endings = ((kind, f"NAME{ending_of(kind)}") for kind in TASKS[task].writers)
    return ", ".join(f"{kind} ({'NAME.png, .jpg' if kind == 'overlay' else ending})" for kind, ending in endings)


def _spare_image(path: Path, source: str) -> None:
    """Refuse to write over the image itself."""
    if source and os.path.realpath(path) == os.path.realpath(source):
        raise UsageError(f"{path} is the image itself and would be overwritten; choose another name")
