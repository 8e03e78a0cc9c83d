"""Which files a dataset has, faults included: what `listing` of a dataset gives, to training and to `data check` alike.

Making a listing reads folders, lists and class files, no image and no mask, and raises nothing about them. Training
raises the first fault of the split that it opens (`Part.error`); `data check` reports all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from segatlas.data.dataset import Color
from segatlas.data.formats.classes import ClassNames
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.errors import DataError
from segatlas.structures import SourceKind

if TYPE_CHECKING:
    from segatlas.data.datasets.decoder import Decoder
    from segatlas.structures import Target

SPLITS = ("train", "val", "test")
SourceCoding: TypeAlias = Literal["classes", "masks", "any"]
"""Codes of a further input: classes 0..K-1 and 255, as `segatlas predict` writes them; those of the dataset's masks; or
any numbers."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """The files of one sample. target: the file of its mask, None without. sources: files of further inputs, by name.

    key: unique within the split, relative path without ending. truths: files of truths of other types than a mask's,
    and of labels that are no mask, by the type's name; many items may have one file, and a folder may stand for the
    files in it. slice: which one of a volume, None = the file is the image; listings have volumes whole, and opening a
    split cuts them.
    """

    key: str
    image: Path
    sources: Mapping[str, Path] = field(default_factory=dict)
    target: Path | None = None
    truths: Mapping[str, Path] = field(default_factory=dict)
    slice: int | None = None

    def file_of(self, target: str) -> Path | None:
        """Return the file of a truth by its type; None without. Labels are the mask's unless a file says them."""
        return self.truths.get(target) or (self.target if target == "SemanticTarget" else None)


@dataclass(frozen=True, kw_only=True)
class Companions:
    """What does not fit among the files of one kind that lie beside the images of a split under the same stems.

    label: what they are called in counts. words: what one of them is. folder: where they lie. missing: images that have
    none. extra: files without image. duplicates: files with the stem of another one. error: the first fault with which
    they cannot be used. is_table: they are rows of a file, which `folder` is.
    """

    label: str
    words: str
    folder: Path
    missing: tuple[Path, ...] = ()
    extra: tuple[Path, ...] = ()
    duplicates: tuple[Path, ...] = ()
    error: DataError | None = None
    is_table: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """What lies there for one split, faults included. In split test an image without mask is no fault."""

    items: tuple[Item, ...] = ()
    images_without_mask: tuple[Path, ...] = ()
    masks_without_image: tuple[Path, ...] = ()
    duplicates: tuple[Path, ...] = ()
    """Files with the stem of another file in the same folder; they are in no item."""

    companions: Mapping[str, Companions] = field(default_factory=dict)
    """Of further inputs by name, and of truths by the name of their type; masks are told of above."""

    error: DataError | None = None
    """The first fault with which the split cannot be opened."""


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """What masks are declared to hold. None = not declared, to be found out.

    label_map: raw code -> label. colors: RGB -> label. ignore: raw codes that mean "ignore". rule: for files in which
    neither codes nor single colours are classes: what makes labels of them, and those are then the codes. exported:
    what a tool has written beside the masks about their colours; it counts where masks are colours and nothing is
    declared.
    """

    classes: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    label_map: Mapping[int, int] | None = None
    colors: Mapping[Color, int] | None = None
    ignore: tuple[int, ...] = (IGNORE,)
    rule: LabelRule | None = None
    exported: ClassNames | None = None


@dataclass(frozen=True, kw_only=True)
class TruthLook:
    """What the truth of one item shows. size: (H, W). objects: how many there are of each class.

    misfit: why it is no truth of this dataset, "" where it is one. problems: kind of finding and text of each further
    fault.
    """

    size: tuple[int, int]
    objects: Mapping[int, int] = field(default_factory=dict)
    misfit: str = ""
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class TruthClasses:
    """The classes of a type of truth. things: by class, None where nothing says it."""

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    things: tuple[bool, ...] | None = None


class TruthRule(Protocol):
    """How files, or entries of a file, become the truth of an item."""

    def read(self, item: Item, decoder: Decoder) -> Target:
        """Return the truth of an item. DataError where it cannot be read, or means nothing."""
        ...

    def look(self, item: Item) -> TruthLook:
        """Return what it shows. DataError where its pixels cannot be read."""
        ...

    def size(self, item: Item) -> tuple[int, int] | None:
        """Return the (H, W) that headers tell, None where there is no file. DataError where they cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong with the files of a dataset as a whole; the fields are those of a finding of `data check`."""

    kind: str
    severity: Literal["error", "warning"] = "error"
    files: tuple[Path, ...] = ()
    fault: str
    repair: str


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """The files of a dataset by split, and what its masks are declared to hold."""

    root: Path
    name: str
    parts: dict[str, Part]
    encoding: LabelEncoding
    faults: tuple[Fault, ...] = ()
    folders: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """Split -> its folder of images and its folder of masks, where it has them."""

    sources: Mapping[str, SourceKind] = field(default_factory=dict)
    """Names and kinds of the further inputs that items may have."""

    source_codes: Mapping[str, SourceCoding] = field(default_factory=dict)
    """What the codes of further inputs of kind "label" are, by name; "any" of those that are not here."""

    truths: Mapping[str, TruthRule] = field(default_factory=dict)
    """How files of truths that are no mask are read, by the name of their type."""

    class_tables: Mapping[str, TruthClasses] = field(default_factory=dict)
    """Classes of truths that have others than those of the dataset, by the name of their type."""

    things: tuple[bool, ...] | None = None
    """By class of the masks, whether it is a thing; None = the files do not say."""

    holds_out_val: bool = False
    """Whether val is held out of train where it has no part of its own."""

    channels: int | None = None
    """The channels that a recipe declares; None = as the dataset's class finds them."""

    accept: tuple[str, ...] = ()
    """The kinds of findings that are meant so, `data.accept`."""

    chosen: str | None = None
    """The only split that was asked for."""

    def with_truths(self, kept: Collection[str]) -> FileListing:
        """Return the listing without truths of other types; masks always stay."""
        parts = {}
        for split, part in self.parts.items():
            items = tuple(
                replace(item, truths={name: path for name, path in item.truths.items() if name in kept})
                for item in part.items
            )
            companions = {name: one for name, one in part.companions.items() if name not in self.truths or name in kept}
            parts[split] = replace(part, items=items, companions=companions)
        return replace(self, parts=parts, truths={name: rule for name, rule in self.truths.items() if name in kept})

    def without_masks(self) -> FileListing:
        """Return the listing for a task of objects, to which masks of classes are nothing."""
        parts = {}
        for split, part in self.parts.items():
            items = tuple(replace(item, target=None) if item.truths else item for item in part.items)
            parts[split] = replace(part, items=items)
        return replace(self, parts=parts)

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
        error = _duplicate(duplicates[0])
    elif lost:
        error = DataError(f"has no mask {expected(lost[0])}", images[lost[0]][0])
    return Part(
        items=items,
        images_without_mask=tuple(images[key][0] for key in lost),
        masks_without_image=tuple(masks[key][0] for key in masks if key not in images),
        duplicates=duplicates,
        error=error,
    )


def joined_parts(parts: Sequence[Part]) -> Part:
    """Return splits without companions as one."""
    return Part(
        items=tuple(item for part in parts for item in part.items),
        images_without_mask=tuple(path for part in parts for path in part.images_without_mask),
        masks_without_image=tuple(path for part in parts for path in part.masks_without_image),
        duplicates=tuple(path for part in parts for path in part.duplicates),
        error=next((part.error for part in parts if part.error is not None), None),
    )


def match_folders(images: Path, masks: Path, split: str) -> Part:
    """Match the images of one folder and the masks of another that have one stem."""
    return match_stems(
        list_images(images),
        list_images(masks),
        needs_mask=split != "test",
        expected=lambda key: masks / f"{key}.png",
    )


def with_companions(
    part: Part, name: str, label: str, words: str, images: Path, folder: Path, *, is_input: bool, needed: bool = True
) -> Part:
    """Return a split whose items have their file of `folder` of the same stem, and what does not fit there.

    Args:
        part: the split, images and masks matched already.
        name: of the further input, or of the type of truth.
        label: what the files are called in counts.
        words: what one of the files is, for messages.
        images: the split's folder of images.
        folder: that of the files.
        is_input: whether they are a further input, without which the split cannot be opened; else truths, which only
            images with a mask need.
        needed: of a further input, whether every image needs one.
    """
    found = list_images(folder)
    items = tuple(
        item
        if item.key not in found
        else replace(item, sources={**item.sources, name: found[item.key][0]})
        if is_input
        else replace(item, truths={**item.truths, name: found[item.key][0]})
        for item in part.items
    )
    lost = [item for item in items if item.key not in found and (needed if is_input else item.target is not None)]
    known = {item.key for item in items}
    known |= {path.relative_to(images).with_suffix("").as_posix() for path in part.images_without_mask}
    duplicates = tuple(path for paths in found.values() for path in paths[1:])
    error = _duplicate(duplicates[0]) if duplicates else None
    if error is None and lost:
        error = DataError(f"has no {words}: expected {folder / lost[0].key}.*", lost[0].image)
    companions = Companions(
        label=label,
        words=words,
        folder=folder,
        missing=tuple(item.image for item in lost),
        extra=tuple(path for key, paths in found.items() if key not in known for path in paths),
        duplicates=duplicates,
        error=error,
    )
    return replace(
        part,
        items=items,
        companions={**part.companions, name: companions},
        error=part.error or (error if is_input else None),
    )


def _duplicate(path: Path) -> DataError:
    return DataError("has the stem of another file beside it; keep one of them", path)


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
