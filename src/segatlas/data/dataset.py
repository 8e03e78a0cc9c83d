"""What every dataset offers. A dataset reads files and translates labels once; it does not augment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from segatlas.data.sample import Sample, Source
from segatlas.errors import DataError
from segatlas.structures import InputSpec, SourceKind, Target

Color = tuple[int, int, int]


@runtime_checkable
class SegmentationData(Protocol):
    """One split of a dataset.

    classes and palette have K entries; `things` says of each class whether it is a thing (objects that can be counted)
    and not stuff, None where the dataset does not say; `channels` is the number of channels of the images; `sources`
    names what samples carry besides the image; `unread` are faults of masks that were met while counting classes.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    things: tuple[bool, ...] | None
    channels: int
    unread: tuple[DataError, ...]

    @property
    def sources(self) -> Mapping[str, SourceKind]:
        """Names and kinds of further inputs that samples carry besides the image."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Return the unique name of a sample (relative path without ending)."""
        ...

    def files(self, index: int) -> tuple[Path, Path | None]:
        """Return the image's file and the mask's file (None without truth)."""
        ...

    def truth_file(self, index: int) -> Path | None:
        """Return the file of the truth that a sample carries: the mask's, or that of another type; None without."""
        ...

    def truth(self, index: int) -> Target | None:
        """Read the truth of one sample alone; None without. Raises DataError as `load`."""
        ...

    def sequence(self, index: int) -> str:
        """Return which drive, video or patient a sample comes from, "" where nothing says it."""
        ...

    def source(self, index: int, name: str) -> Source | None:
        """Read a further input of one sample alone; None where it is not there. Raises DataError as `load`."""
        ...

    def load(self, index: int) -> Sample:
        """Read one sample. Raises DataError naming the file when it cannot be read or its label is out of range."""
        ...


def sources_fault(taken: Sequence[InputSpec], name: str, given: Mapping[str, SourceKind]) -> str:
    """Return in words which source a network needs that a dataset does not give, "" where there is none.

    Args:
        taken: what the network takes besides the image; one that is not required may be missing.
        name: of the dataset.
        given: the sources that it gives.
    """
    gives = ", ".join(f"{source} ({kind})" for source, kind in given.items()) or "none"
    for spec in taken:
        kind = given.get(spec.name)
        if kind != spec.kind and (kind is not None or spec.required):
            return f"the network takes the source {spec.name!r} ({spec.kind}); {name} gives: {gives}"
    return ""
