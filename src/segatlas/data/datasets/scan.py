"""Look into all masks of a folder: which raw codes they hold, how many classes that makes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from segatlas.data.datasets.color_tables import color_fault
from segatlas.data.datasets.foreign import WHERE_KEYS_GO
from segatlas.data.formats.masks import (
    IGNORE,
    LOSSY_ENDINGS,
    MAX_CLASSES,
    ColorMaskError,
    label_counts,
    read_mask,
)
from segatlas.errors import DataError

logger = logging.getLogger(__name__)


def mask_codes(path: Path, *, lossy: bool = False) -> frozenset[int]:
    """Return the raw codes of a mask. Kept in memory while the file does not change; DataError as `read_mask`."""
    stat = path.stat()
    return _codes(str(path), stat.st_size, stat.st_mtime_ns, lossy)


def count_classes(
    masks: Sequence[Path], ignore: Sequence[int], root: Path, *, lossy: bool = False
) -> tuple[int, tuple[DataError, ...]]:
    """Return the number of classes that masks show, and what was met where one could not be read.

    The number is the largest code that is not in `ignore`, plus one.

    Raises:
        DataError: no masks, none that can be read, JPEG masks (unless `lossy`), most of them colours, more than 255
            classes, or fewer than two.
    """
    if not masks:
        raise DataError("has no masks; class names must be given in data.classes", root)
    jpegs = [] if lossy else [path for path in masks if path.suffix.lower() in LOSSY_ENDINGS]
    if jpegs:
        message = f"is a JPEG mask ({len(jpegs)} of {len(masks)} are): JPEG smears labels, so classes cannot be counted"
        raise DataError(f"{message}; `segatlas data check --fix NEW_FOLDER` writes PNG masks", jpegs[0])
    logger.info("counting classes in %d masks of %s (data.classes or classes.txt saves this)", len(masks), root)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        read = list(pool.map(partial(_codes_or_error, lossy=lossy), masks))
    errors = tuple(codes for codes in read if isinstance(codes, DataError))
    largest_codes = [
        -1 if isinstance(codes, DataError) else max(codes.difference(ignore), default=-1) for codes in read
    ]
    if any(isinstance(error, ColorMaskError) for error in errors) and (fault := color_fault(masks, root)):
        raise fault
    if len(errors) == len(read):
        raise errors[0]
    largest = max(largest_codes)
    if largest >= MAX_CLASSES:
        known = f"label {largest} would make {largest + 1} classes, at most {MAX_CLASSES} are possible"
        where = masks[largest_codes.index(largest)]
        raise DataError(f"{known}; map the codes in data.label_map, or add {largest} to data.ignore", where)
    if largest < 1:
        found = "only class 0" if largest == 0 else "no label"
        if errors:
            text = str(errors[0]).removeprefix(f"{errors[0].path}: ")
            how_many = f"{len(errors)} of {len(masks)} masks cannot be read, and the others show {found}"
            raise DataError(f"{text}; {how_many}", errors[0].path)
        raise DataError(f"the {len(masks)} masks show {found}; at least two classes are needed (data.classes)", root)
    return largest + 1, errors


def refuse_black_and_white(masks: Sequence[Path], *, lossy: bool = False) -> None:
    """Raise DataError where every mask holds only 0 and 255: 255 would be "ignore", and nothing be learned.

    Stops reading at the first mask with another code, or with colours. A mask that cannot be read is reported when it
    is loaded.
    """
    white, unread = None, 0
    for path in masks:
        try:
            codes = mask_codes(path, lossy=lossy)
        except ColorMaskError:
            return
        except DataError:
            unread += 1
            continue
        if codes - {0, IGNORE}:
            return
        white = path if IGNORE in codes and white is None else white
    if white is not None:
        which = f"all {len(masks) - unread} masks" + (" that can be read" if unread else "")
        raise DataError(
            f"{which} hold only 0 and 255, but 255 means 'ignore'. If 255 is the object, {WHERE_KEYS_GO} "
            '"data.label_map={0: 0, 255: 1}"',
            white,
        )


def _codes_or_error(path: Path, *, lossy: bool) -> frozenset[int] | DataError:
    try:
        return mask_codes(path, lossy=lossy)
    except DataError as error:
        return error


@lru_cache(maxsize=100_000)
def _codes(path: str, size: int, changed_ns: int, lossy: bool) -> frozenset[int]:
    return frozenset(label_counts(read_mask(path, lossy=lossy)))
