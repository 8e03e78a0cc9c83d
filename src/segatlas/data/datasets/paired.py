"""What all datasets made of image files and mask files share."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.dataset import Color
from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import SPLITS, FileListing, Item, Part
from segatlas.data.formats.images import decode_image
from segatlas.data.formats.masks import LOSSY, LabelRule, as_codes, decode_raw
from segatlas.data.sample import Sample, Source
from segatlas.data.store import Store
from segatlas.errors import DataError, UsageError
from segatlas.structures import SemanticTarget, SourceKind, Target


class MissingRootError(DataError):
    """The folder that `data.root` names is not there, and another `data.root` would help."""


class PairedFiles(ABC):
    """One split of a dataset whose samples are files; implements `SegmentationData`.

    A dataset is a subclass that lists its files and says how to translate one mask.

    Args:
        cfg: the recipe's `data` section.
        split: which split.
        seed: decides which images are held out of train where a folder has no val part.
        store: where decoded images and labels are kept; None decodes each time. The samples are the same; with a
            store their arrays are read-only.
        target: which of `targets` the samples carry.
    """

    name: str
    layout: str
    """What a root of this dataset holds, in one line, for messages."""

    targets: tuple[str, ...] = ("SemanticTarget",)
    """Names of the types of truth that it can give, the plainest first."""

    sources: Mapping[str, SourceKind] = {}
    """Further inputs that its samples carry besides the image, by name; where a recipe says which, its defaults."""

    things: tuple[bool, ...] | None = None
    """By class: whether it is a thing (objects that can be counted) and not stuff; None = the dataset does not say."""

    find: Callable[[str], type[PairedFiles]]
    """How a dataset made of others finds these by name: the table gives it to those whose options have `sources`."""

    options: type[Section] = Section
    """The record of the keys that only this dataset has in a recipe's `data:`."""

    unread: tuple[DataError, ...] = ()
    """Masks that could not be read when the classes were counted: each is told again when it is loaded."""

    classes: tuple[str, ...]
    palette: tuple[Color, ...]

    def __init__(
        self,
        cfg: DataConfig,
        split: str,
        seed: int = 0,
        store: Store | None = None,
        target: str = "SemanticTarget",
    ):
        self.split = split
        self.target = target
        self.decoder = Decoder(store)
        self.channels = cfg.channels or 3
        self.sources = self.sources_of(cfg)
        self.takes_lossy = LOSSY in cfg.accept
        self.items = tuple(self.open(cfg, self.prepare(cfg), seed))

    @classmethod
    def require_target(cls, target: str) -> None:
        """Raise UsageError where this dataset does not give truths of a type."""
        if target not in cls.targets:
            raise UsageError(f"data.name={cls.name} gives {', '.join(cls.targets)}, not the {target} that is asked for")

    @classmethod
    def sources_of(cls, cfg: DataConfig) -> Mapping[str, SourceKind]:
        """Return the further inputs of samples by name. Raises nothing: what is faulty shows when it is opened."""
        return cls.sources

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the root folder; UsageError when none is set, MissingRootError, DataError when it is no folder."""
        if cfg.root is None:
            raise UsageError(f"data.root is not set; the {cls.name} dataset needs a folder with {cls.layout}")
        root = Path(cfg.root).expanduser()
        if not root.exists():
            place = "" if root.is_absolute() else f": no folder {root.absolute()}"
            raise MissingRootError(f"data.root is missing{place}{_nearest(root)}", root)
        if not root.is_dir():
            raise DataError("data.root is a file, expected a folder", root)
        return root

    @classmethod
    def reads(cls, cfg: DataConfig, root: Path) -> bool:
        """Whether the files are where this dataset has them."""
        return cls.fits(root)

    @classmethod
    @abstractmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder is laid out as this dataset is."""

    @classmethod
    @abstractmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the files of the splits that are there. Raises nothing about them: faults are part of the listing."""

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected, for the message about an empty one."""
        return f"{split}/"

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of `self.split`, at least one.

        Raises:
            DataError: the first fault of the split, or there is no item.
        """
        self.listed = self.listing(cfg, root, (self.split,))
        part = self.listed.parts.get(self.split, Part())
        truths = part.companions.get(self.target)  # None for masks, whose faults are the part's own
        error = part.error or (None if truths is None else truths.error)
        if error is not None:
            raise error
        if part.items and not self.gives(part, self.target):
            given = ", ".join(name for name in self.targets if self.gives(part, name)) or "no truth"
            raise DataError(f"split {self.split!r} gives {given}, not the {self.target} that is asked for", root)
        if not part.items:
            parts = self.listing(cfg, root).parts
            raise empty_split(self.split, root, self.expected(root, self.split), [n for n in parts if parts[n].items])
        if (table := self.listed.class_tables.get(self.target)) is not None:
            self.classes, self.palette, self.things = table.names, table.palette, table.things
        return part.items

    @staticmethod
    def gives(part: Part, target: str) -> bool:
        """Whether a split has truths of a type; of one where no image needs a truth, it is so."""
        found = [item.file_of(target) for item in part.items]
        other = any(item.target is not None or item.truths for item in part.items)
        return not other or any(path is not None for path in found)

    @abstractmethod
    def label_rule(self, path: Path) -> LabelRule:
        """Return how a mask file becomes a label; the decoded store keeps labels by this rule."""

    def __len__(self) -> int:
        return len(self.items)

    def key(self, index: int) -> str:
        """Return the unique name of a sample (relative path without ending)."""
        return self.items[index].key

    def sequence(self, index: int) -> str:
        """Return which drive, video or patient a sample comes from, "" where nothing says it."""
        return ""

    def source(self, index: int, name: str) -> Source | None:
        """Read a further input of one sample alone; None where it is not there. DataError as `load`."""
        path = self.items[index].sources.get(name)
        return None if path is None else self._source(path, name)

    def files(self, index: int) -> tuple[Path, Path | None]:
        """Return the image's file and the mask's file (None without truth)."""
        return self.items[index].image, self.items[index].target

    def truth_file(self, index: int) -> Path | None:
        """Return the file of the truth that a sample carries; None without."""
        return self.items[index].file_of(self.target)

    def truth(self, index: int) -> Target | None:
        """Read the truth of one sample alone, of the type `self.target`; None without. DataError as `load`."""
        item, path = self.items[index], self.truth_file(index)
        if path is None:
            return None
        if self.target == "SemanticTarget" and self.target not in item.truths:
            return SemanticTarget(self.read_label(path))
        return self.listed.truths[self.target].read(item, self.decoder)

    def load(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataError: a file cannot be read, a label is out of range, or image and mask differ in size.
        """
        item = self.items[index]
        image = self._decoded(
            item.image, f"image {self.channels}", lambda data: decode_image(data, self.channels, name=item.image)
        )
        truth, target = self.truth_file(index), self.truth(index)
        if target is not None and np.shape(target[0])[-2:] != image.shape[:2]:
            raise DataError(size_message(np.shape(target[0])[-2:], image.shape[:2], item.image), truth)
        sources = {name: self._source(path, name) for name, path in item.sources.items()}
        for name, source in sources.items():
            if source.array.shape[:2] != image.shape[:2]:
                (height, width), found = image.shape[:2], source.array.shape
                text = f"{name} is {found[1]} x {found[0]} pixels, its image {item.image} is {width} x {height}"
                raise DataError(text, item.sources[name])
        return Sample(image=image, target=target, key=item.key, index=index, sources=sources)

    def _source(self, path: Path, name: str) -> Source:
        """Read a further input, as `segatlas.data.sample.Source` says of its kind."""
        kind, coding = self.sources[name], self.listed.source_codes.get(name, "any")
        if kind == "label" and coding == "masks":
            return Source(array=self.read_label(path), kind=kind)
        if kind == "label":
            count = len(self.classes) if coding == "classes" else None
            codes = self._decoded(path, f"codes {count}", lambda data: as_codes(decode_raw(data, path), path, count))
            return Source(array=codes, kind=kind)
        channels = self.channels if kind == "image" else None
        array = self._decoded(path, f"image {channels}", lambda data: decode_image(data, channels, name=path))
        return Source(array=array, kind=kind)

    def read_label(self, path: Path) -> np.ndarray:
        """Read a mask as (H, W) uint8, 0..K-1 or 255. DataError as `load`."""
        rule = self.label_rule(path)
        if self.takes_lossy:
            rule = replace(rule, lossy=True)
        return self._decoded(path, f"label {rule.text}", lambda data: rule.decode(data, path))

    def _decoded(self, path: Path, kind: str, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        return self.decoder.file(path, kind, decode)


def size_message(mask: tuple[int, ...], image: tuple[int, ...], image_path: Path) -> str:
    """Return the text for a mask (h, w) that does not cover its image (h, w)."""
    text = f"mask is {mask[1]} x {mask[0]} pixels, its image {image_path} is {image[1]} x {image[0]}"
    if mask == image[::-1]:
        return f"{text}: does the image carry an EXIF orientation that the mask was drawn without?"
    return text


def empty_split(split: str, root: Path, expected: str, found: Sequence[str]) -> DataError:
    """Return the error for a split without images."""
    there = f"splits with images: {', '.join(found)}" if found else "no split has images"
    return DataError(f"split {split!r} is empty: expected images in {expected}; {there}", root)


def _nearest(root: Path) -> str:
    parent = root.parent
    if not parent.is_dir():
        return f"; nor is there a folder {parent}"
    close = difflib.get_close_matches(root.name, [entry.name for entry in parent.iterdir() if entry.is_dir()], n=1)
    return f"; the nearest name there is {close[0]}" if close else ""
