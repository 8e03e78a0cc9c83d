"""What a Predictor returns for several images: a list that draws and saves itself, or one that comes bit by bit."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np

from segatlas import drawing
from segatlas.errors import UsageError
from segatlas.inference.segmentation import Segmentation
from segatlas.output import FolderOfResults, result_names
from segatlas.output.saving import NAMELESS, stem_of


class Segmentations(list[Segmentation]):
    """The results of several images, in their order: a list, whose slices are such lists too.

    All of them are in memory, with their images: see `Segmentation`. `Predictor.predict_iter` gives one at a time.
    names: what the files of results are called by, by the file of the image, where this is known beforehand.
    """

    def __init__(self, results: Iterable[Segmentation] = (), names: Mapping[str, str] | None = None):
        super().__init__(results)
        self.names = dict(names or {})

    def grid(self, columns: int | None = None) -> np.ndarray:
        """Return all on one sheet with the names of their images, (H, W, 3) uint8; those beyond 48 are left out.

        Raises:
            UsageError: there is none.
        """
        if not self:
            raise UsageError("a grid of no results")
        return drawing.results_sheet(self, columns)

    def show(self) -> None:
        """Show the grid: in a notebook below the cell, else in a window; UsageError where there is neither."""
        drawing.show(self, self.grid, f"{len(self)} images")

    def save(self, folder: str | Path, kinds: str | Sequence[str] | None = None) -> list[Path]:
        """Write each into a folder, as `Segmentation.save` does; return what was written.

        Files are called by the stems of the images' files; those of a folder or glob have their sub-folders before it,
        and where two of a list have the same stem their folders, below the one that they have in common. Images without
        a name are `image_1`, `image_2` by their place.

        Raises:
            UsageError: a file in place of a folder, a kind that the task has no file for, or images whose results
                would have one name; nothing was written then.
        """
        place, usual = FolderOfResults(folder, kinds), result_names([result.source for result in self])
        named = [(self.names.get(one.source, name), one) for one, name in zip(self, usual, strict=True)]
        for name, result in named:
            place.claim(name, result.source)
        return [path for name, result in named for path in place.save(result, name)]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return `Segmentation.to_dict` of each."""
        return [result.to_dict() for result in self]

    @overload
    def __getitem__(self, index: SupportsIndex) -> Segmentation: ...

    @overload
    def __getitem__(self, index: slice) -> Segmentations: ...

    def __getitem__(self, index: Any) -> Any:
        """Return one, or a list of some."""
        found = super().__getitem__(index)
        return Segmentations(found, self.names) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        lines = "".join(f"  {result!r},\n" for result in self)
        return f"[\n{lines}]" if self else "[]"

    def _repr_png_(self) -> bytes | None:
        return drawing.png_bytes(self.grid()) if self else None

    def _repr_html_(self) -> str | None:
        return drawing.results_html(self) if self else None


class SegmentationStream(Iterator[Segmentation]):
    """The results of images that come one after the other: each is made when it is asked for, and none is kept.

    Closing it, which its end does by itself, ends the reading of images. names: what the files of results are called
    by, by the file of the image, where this is known beforehand.
    """

    def __init__(self, results: Generator[Segmentation, None, None], names: Mapping[str, str] | None = None):
        self.names = dict(names or {})
        self._results = results
        self._given = 0

    def __next__(self) -> Segmentation:
        result = next(self._results)
        self._given += 1
        return result

    def close(self) -> None:
        """Take no further image."""
        self._results.close()

    def save(self, folder: str | Path, kinds: str | Sequence[str] | None = None) -> list[Path]:
        """Write each of those that are still to come into a folder, one at a time; return what was written.

        As `Segmentations.save`; two images whose results would have one name are told at the second one.
        """
        place, written = FolderOfResults(folder, kinds), list[Path]()
        with closing(self):
            for result in self:
                name = self.names.get(result.source) or stem_of(result.source) or f"{NAMELESS}_{self._given}"
                written += place.save(result, name)
        return written

    def __repr__(self) -> str:
        of = f" of {len(self.names)}" if self.names else ""
        return f"SegmentationStream({self._given}{of} given so far; each is made when it is asked for)"
