"""A folder of numbered images as the frames of a video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from segatlas.data.formats.images import read_image
from segatlas.data.formats.listing import is_hidden, is_image_name
from segatlas.data.video.frames import FrameSource, VideoFrame
from segatlas.errors import DataError
from segatlas.printable import printable

Parts = tuple[str | int, ...]


class NumberedFrames(FrameSource):
    """The images of one folder, in the order of the numbers in their names; what lies in folders below is left out.

    Each is shown for 1 / rate seconds. Numbers that are missing are noted and take no time. An image that cannot be
    read is left out and told after the last one.
    """

    def __init__(self, folder: Path, rate: Fraction):
        """List the folder.

        Raises:
            DataError: it cannot be read or holds no image; a name without a number, or names that are no sequence.
        """
        try:
            found = [path for path in folder.iterdir() if is_image_name(path) and not is_hidden(path.name)]
        except OSError as error:
            raise DataError(f"the folder cannot be read: {error.strerror or error}", folder) from error
        if not found:
            raise DataError("no images in the folder", folder)
        keys = {path: _parts(path.stem) for path in found}
        self.files = sorted(found, key=lambda path: (keys[path], path.name))
        super().__init__(str(folder), count=len(found), rate=rate)
        self.notes += _gaps(_numbers([keys[path] for path in self.files], self.files))

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the images. DataError after the last one, where some cannot be read."""
        faults: list[str] = []
        step, number = 1 / Fraction(self.rate or 1), 0
        for place, path in enumerate(self.files):
            try:
                image = read_image(path)
            except DataError as error:
                faults.append(str(error))
                continue
            yield VideoFrame(number=number, image=image, pts=place, time_base=step, duration=1, source=str(path))
            number += 1
        if faults:
            raise DataError(f"{len(faults)} of {len(self.files)} frames cannot be read, the first: {faults[0]}")


def _parts(stem: str) -> Parts:
    """Return a name's texts and numbers in turn, beginning with a text."""
    return tuple(int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", stem)))


def _numbers(keys: list[Parts], files: list[Path]) -> list[int]:
    """Return each file's number: what differs between names that are otherwise alike."""
    for key, path in zip(keys, files, strict=True):
        if len(key) == 1:
            raise DataError("the name has no number, so its place among the frames is not known", path)
        if [one for one in key if isinstance(one, str)] != [one for one in keys[0] if isinstance(one, str)]:
            raise DataError(f"is not called as {printable(files[0].name)} is: one sequence a folder", path)
    differing = [at for at in range(1, len(keys[0]), 2) if len({key[at] for key in keys}) > 1]
    if len(set(keys)) < len(keys):
        twice = next(path for path, one, other in zip(files[1:], keys[1:], keys, strict=False) if one == other)
        raise DataError("another file of the folder has the same number", twice)
    if len(differing) > 1:
        raise DataError(f"names differ in {len(differing)} numbers, such as {printable(files[-1].name)}", files[0])
    return [int(key[differing[0]]) for key in keys] if differing else [0]


def _gaps(numbers: list[int]) -> list[str]:
    """Return a note where numbers are missing from a sequence whose step is otherwise the same."""
    steps = [after - before for before, after in pairwise(numbers)]
    if not steps or min(steps) == max(steps):
        return []
    usual = min(steps)
    missing = sum(step // usual - 1 for step in steps)
    first = next(number for number, step in zip(numbers, steps, strict=False) if step != usual)
    gap = "1 number is" if missing == 1 else f"{missing} numbers are"
    return [f"{gap} missing between {numbers[0]} and {numbers[-1]}, the first after {first}"]
