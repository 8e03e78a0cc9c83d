"""Which files a dataset has, faults included: what `listing` of a dataset gives, to training and to `data check` alike.

Making a listing reads folders, lists and class files, no image and no mask, and raises nothing about them. Training
raises the first fault of the split that it opens (`Part.error`); `data check` reports all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segatlas.data.dataset import Color
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Item:
    """The files of one sample. target: the file of its truth, None without. sources: files of further inputs, by name.

    key: unique within the split, relative path without ending.
    """

    key: str
    image: Path
    sources: Mapping[str, Path] = field(default_factory=dict)
    target: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What lies there for one split, faults included. In split test an image without mask is no fault."""

    items: tuple[Item, ...] = ()
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    duplicates: tuple[Path, ...] = ()
    """Files with the stem of another file in the same folder; they are in no item."""

    error: DataError | None = None
    """The first fault with which the split cannot be opened."""


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """What masks are declared to hold. None = not declared, to be found out.

    label_map: raw code -> label. colors: RGB -> label. ignore: raw codes that mean "ignore". rule: for files in which
    neither codes nor single colours are classes: what makes labels of them, and those are then the codes.
    """

    classes: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    label_map: Mapping[int, int] | None = None
    colors: Mapping[Color, int] | None = None
    ignore: tuple[int, ...] = (IGNORE,)
    rule: LabelRule | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong with the files of a dataset as a whole; the fields are those of a finding of `data check`."""

    kind: str
    severity: Literal["error", "warning"] = "error"
    files: tuple[Path, ...] = ()
    fault: str
    repair: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a dataset by split, and what its masks are declared to hold."""

    root: Path
    name: str
    parts: dict[str, Part]
    encoding: LabelEncoding
    faults: tuple[Fault, ...] = ()
    folders: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """Split -> its folder of images and its folder of masks, where it has them."""

    holds_out_val: bool = False
    """Whether val is held out of train where it has no part of its own."""

    channels: int | None = None
    """The channels that a recipe declares; None = as the dataset's class finds them."""

    accept: tuple[str, ...] = ()
    """The kinds of findings that are meant so, `data.accept`."""

    chosen: str | None = None
    """The only split that was asked for."""

    def has_part(self, split: str) -> bool:
        """Whether a split has an image, with or without a mask."""
        part = self.parts.get(split)
        return part is not None and bool(part.items or part.images_without_mask)


def match_stems(
    images: Mapping[str, Sequence[Path]],
    masks: Mapping[str, Sequence[Path]],
    *,
    needs_mask: bool = True,
    expected: Callable[[str], object] = str,
) -> Part:
    """Match images and masks that have one key; where one key has several files, the first of them counts.

    expected: key -> the mask that is missing, for the message.
    """
    items = tuple(
        Item(key=key, image=paths[0], target=masks[key][0] if key in masks else None)
        for key, paths in images.items()
        if key in masks or not needs_mask
    )
    lost = [key for key in images if needs_mask and key not in masks]
    duplicates = tuple(path for found in (images, masks) for paths in found.values() for path in paths[1:])
    error = None
    if duplicates:
        error = DataError("has the stem of another file beside it; keep one of them", duplicates[0])
    elif lost:
        error = DataError(f"has no mask {expected(lost[0])}", images[lost[0]][0])
    return Part(
        items=items,
        images_without_mask=tuple(images[key][0] for key in lost),
        masks_without_image=tuple(masks[key][0] for key in masks if key not in images),
        duplicates=duplicates,
        error=error,
    )


def match_folders(images: Path, masks: Path, split: str) -> Part:
    """Match the images of one folder and the masks of another that have one stem."""
    return match_stems(
        list_images(images),
        list_images(masks),
        needs_mask=split != "test",
        expected=lambda key: masks / f"{key}.png",
    )


def fault_of_list(error: DataError, repair: str, *, kind: str = "list", root: Path | None = None) -> Fault:
    """Return the fault that an unreadable or faulty list is."""
    path = error.path or root
    text = str(error).removeprefix(f"{error.path}: ")
    return Fault(kind=kind, files=() if path is None else (Path(path),), fault=text, repair=repair)


def listed_but_missing(files: Iterable[Path], listed_in: Path) -> Fault:
    """Return the fault of images that a list names and that are not there."""
    return Fault(
        kind="list",
        files=tuple(files),
        fault=f"listed in {listed_in}, but not there",
        repair=f"restore the images, or delete their lines in {listed_in}",
    )
