"""Label files become files of multi-class boundary labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segatlas.data.formats.listing import is_image_name, walk_files
from segatlas.data.formats.masks import read_mask, write_mask
from segatlas.errors import DataError, UsageError
from segatlas.files import require_writable
from segatlas.labels import IGNORE
from segatlas.palette import default_palette
from segatlas.printable import printable
from segatlas.structures.class_boundaries import class_boundaries

NONE_COLOR, IGNORE_COLOR = (232, 235, 239), (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class BoundaryFiles:
    """What was written. rest: the code of pixels of no boundary. fraction: of labelled pixels that are of one."""

    files: tuple[Path, ...]
    rest: int
    fraction: float


def write_boundary_labels(
    sources: Sequence[str | Path],
    out: Path,
    *,
    width: int = 2,
    rest: str | int = "none",
    ignore: int = IGNORE,
    overwrite: bool = False,
) -> BoundaryFiles:
    """Write a PNG of boundary labels for each label file, under its path below the folder that was named.

    Args:
        sources: files of codes 0..255, or folders of them.
        out: where to.
        width: pixels on each side of a boundary.
        rest: "none" = the code behind the largest of all files, "ignore" = 255, or a code that none has.
        ignore: the code that means no label; it becomes 255.
        overwrite: replace files that are there.

    Raises:
        UsageError: a folder without images, a number out of range, two files of one name, or one that is there already.
        DataError: a file that is no mask of codes 0..255.
    """
    if isinstance(rest, str) and rest not in ("none", "ignore") and not rest.isdecimal():
        raise UsageError(f"rest: got {rest!r}, expected none, ignore or a number 0..{IGNORE}")
    if not 0 <= ignore <= IGNORE:
        raise UsageError(f"ignore: got {ignore}, expected 0..{IGNORE}")
    class_boundaries(np.zeros((1, 1), np.uint8), width=width)  # a width out of range should not wait for the files
    places = _places(sources, out, overwrite=overwrite)
    largest = -1
    for file in places:
        labels = _labels(file, ignore)
        largest = max(largest, int(labels[labels != IGNORE].astype(np.int64).max(initial=-1)))
    if largest < 0:
        raise UsageError(f"no pixel of {len(places)} masks has a label: all are {ignore}")
    code = {"none": largest + 1, "ignore": IGNORE}[rest] if rest in ("none", "ignore") else int(rest)
    if code >= IGNORE and rest != "ignore":
        raise UsageError(f"rest: {code} is no free code below {IGNORE}; use --rest ignore, or fewer classes")
    require_writable(out, error=UsageError)
    palette = [IGNORE_COLOR] * 256
    palette[: largest + 1] = default_palette(largest + 1)
    if code != IGNORE:
        palette[code] = NONE_COLOR
    bounded = labelled = 0
    for file, target in places.items():
        labels = _labels(file, ignore)
        found = class_boundaries(labels, width=width, rest=code)
        labelled += int((labels != IGNORE).sum())
        bounded += int(((found != code) & (found != IGNORE)).sum())
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, found, palette)
    return BoundaryFiles(files=tuple(places.values()), rest=code, fraction=bounded / max(labelled, 1))


def _labels(file: Path, ignore: int) -> np.ndarray:
    codes = read_mask(file)
    if codes.max(initial=0) > IGNORE:
        raise DataError(f"holds the code {int(codes.max())}, expected 0..{IGNORE}", file)
    labels = codes.astype(np.uint8)
    if ignore != IGNORE:
        if (labels == IGNORE).any():
            raise DataError(f"holds the code {IGNORE}, which is to mean no label, besides {ignore}", file)
        labels[labels == ignore] = IGNORE
    return labels


def _places(sources: Sequence[str | Path], out: Path, *, overwrite: bool) -> dict[Path, Path]:
    """Return file -> where it is written."""
    places: dict[Path, Path] = {}
    for source in map(Path, sources):
        if source.is_dir():
            files = [file for file in walk_files(source) if is_image_name(file)]
            if not files:
                raise UsageError(f"{printable(source)}: no image in this folder, expected label files")
            places |= {file: (out / file.relative_to(source)).with_suffix(".png") for file in files}
        elif source.is_file():
            places[source] = (out / source.name).with_suffix(".png")
        else:
            raise UsageError(f"{printable(source)}: no such file or folder")
    targets = list(places.values())
    double = next((one for one in targets if targets.count(one) > 1), None)
    if double is not None:
        raise UsageError(f"two of the masks would be written to {printable(double)}; name their folder instead")
    mine = next((file for file, target in places.items() if file.resolve() == target.resolve()), None)
    if mine is not None:
        raise UsageError(f"--out: {printable(mine)} would be replaced by what is made of it; choose another folder")
    there = next((one for one in targets if one.exists()), None)
    if there is not None and not overwrite:
        raise UsageError(f"{printable(there)} is there already; --overwrite replaces it")
    return places
