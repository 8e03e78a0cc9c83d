"""Several datasets as one, also where their lists of classes differ.

    data:
      name: mixed
      root: data                                # what roots of the sources are relative to
      sources:
        - {name: camvid, root: camvid}
        - {name: folder, root: cars}            # its masks know "other" and "car" alone
      rest: other

Classes are matched by name; by default all that a source names are classes, in the order in which they first occur.
What a source does not name was not annotated in its images: `SemanticTarget.annotated` says so, the loss
`marginal_cross_entropy` learns by it, and scores leave it out. `rest` is the class that in a source means "none of
mine": where a source lacks other classes, such pixels may show one of these. A class of a source that is not among
`classes` is part of that rest.

Each source is read by its own dataset with its own keys. A split holds the images of all sources that have it; nothing
is held out. Only truths of classes of pixels are mixed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from segatlas.config.mask_values import Color
from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import (
    SPLITS,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    TruthClasses,
    TruthLook,
    TruthRule,
)
from segatlas.data.datasets.paired import MissingRootError, PairedFiles
from segatlas.data.datasets.weak_truths import SEMANTIC, RuleOfImage, SparseLabels
from segatlas.data.formats.coco import Size
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.data.formats.palettes import voc_palette
from segatlas.errors import DataError, UsageError
from segatlas.labels import MAX_CLASSES
from segatlas.structures import SemanticTarget


class MixedOptions(Section):
    """Which datasets are mixed, and which classes they make."""

    sources: tuple[dict[str, Any], ...] = Field(
        (), description="a `data:` section each: name, root and keys of that dataset"
    )
    classes: tuple[str, ...] | None = Field(
        None, description="names of the classes; default: those of all sources, in the order in which they first occur"
    )
    rest: str | None = Field(
        None, description="the class that in a source means 'none of mine', such as background; default: no class does"
    )


@dataclass(frozen=True, kw_only=True)
class MappedLabels:
    """Labels of a source by the classes of the whole. table: (256,) uint8, class of the source -> class, or 255.

    annotated: (K,) bool, the classes that the source knows.
    """

    inner: TruthRule
    table: np.ndarray
    annotated: np.ndarray
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return the labels of an item, and what was annotated in it."""
        target = self.inner.read(item, decoder)
        assert isinstance(target, SemanticTarget)
        flags, present = self.annotated.copy(), None
        if target.annotated is not None:
            flags = flags & self._moved(np.asarray(target.annotated))
        if target.present is not None:
            present = self._moved(np.asarray(target.present))
        return SemanticTarget(self.table[np.asarray(target.labels)], None if flags.all() else flags, present)

    def size(self, item: Item) -> Size | None:
        """Return the size that the source's rule tells."""
        return self.inner.size(item)

    def look(self, item: Item) -> TruthLook:
        """Return what the source's rule shows, by the classes of the whole."""
        found = self.inner.look(item)
        counts: dict[int, int] = {}
        for kind, count in found.objects.items():
            if self.table[kind] != IGNORE:
                counts[int(self.table[kind])] = counts.get(int(self.table[kind]), 0) + count
        return replace(found, objects=counts)

    def _moved(self, flags: np.ndarray) -> np.ndarray:
        """Return flags (K,) of the classes of the whole for flags of those of the source."""
        moved = np.zeros(len(self.annotated) + 1, bool)
        places = np.minimum(self.table[: len(flags)], len(self.annotated))
        moved[places[flags.astype(bool)]] = True
        return moved[:-1]


class Mixed(PairedFiles):
    """One split of several datasets (see the head of this file)."""

    name = "mixed"
    layout = "the folders of its sources: data.sources=[{name: folder, root: ...}, ...]"
    options = MixedOptions

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the folder that the sources' roots are relative to; by default the working folder."""
        return super().prepare(cfg) if cfg.root is not None else Path()

    @classmethod
    def reads(cls, cfg: DataConfig, root: Path) -> bool:
        """Whether sources are named; their own datasets say what is wrong with their files."""
        if not cfg.options(MixedOptions).sources:
            raise UsageError("data.sources is empty; data.name=mixed needs the data: section of each source")
        return True

    @classmethod
    def fits(cls, root: Path) -> bool:
        """No folder is one by itself."""
        return False

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits of all sources; keys begin with the number and the name of the source.

        Raises:
            UsageError: a source that is no dataset, keys that contradict one another, a class that no source has.
        """
        options = cfg.options(MixedOptions)
        listings = []
        for number, section in enumerate(options.sources):
            own = source_config(section, number, root)
            kind = cls.find(own.name)
            try:
                place = kind.prepare(own)
            except MissingRootError as error:  # the key is another one
                text = str(error).removeprefix(f"{error.path}: ")
                raise DataError(text.replace("data.root", f"data.sources.{number}.root", 1), error.path) from None
            if not kind.reads(own, place):
                raise DataError(f"is not laid out as data.name={own.name}: expected {kind.layout}", place)
            listings.append(kind.listing(own, place, splits))
        names = _names(options, listings)
        parts: dict[str, Part] = {}
        rules: dict[Path, TruthRule] = {}
        for number, listed in enumerate(listings):
            maps = _maps(listed, names, options.rest)
            for split in (split for split in splits if split in listed.parts):
                part = _prefixed(listed, listed.parts[split], f"{number}_{listed.name}", maps, rules)
                parts[split] = _joined(parts[split], part) if split in parts else part
        palette = _palette(names, listings)
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            encoding=LabelEncoding(classes=names, palette=palette),
            faults=tuple(fault for listed in listings for fault in listed.faults),
            truths={SEMANTIC: RuleOfImage(rules=rules)},
            class_tables={SEMANTIC: TruthClasses(names=names, palette=palette)},
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"{split} of one of data.sources"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of whole masks; no item has one, for each truth is read by the rule of its source."""
        return LabelRule(num_classes=len(self.classes))


def source_config(section: Mapping[str, Any], number: int, root: Path) -> DataConfig:
    """Return the `data` section of a source, its root below `root`. UsageError where it names none."""
    if not isinstance(section.get("root"), str):
        raise UsageError(f"data.sources.{number}.root is not set; expected the folder of the dataset")
    place = root / Path(section["root"]).expanduser()
    return DataConfig.model_validate({**section, "root": str(place)})


def _names(options: MixedOptions, listings: Sequence[FileListing]) -> tuple[str, ...]:
    """Return the names of the classes. DataError where a source does not name its own."""
    for listed in listings:
        if _classes(listed) is None:
            raise DataError("does not name its classes, by which sources are mixed: add classes.json", listed.root)
    known = tuple(dict.fromkeys(name for listed in listings for name in _classes(listed) or ()))
    names = known if options.classes is None else options.classes
    lost = [name for name in (*names, *([options.rest] if options.rest else [])) if name not in known]
    if lost:
        close = difflib.get_close_matches(lost[0], known, n=1)
        hint = f", nearest {close[0]!r}" if close else ""
        raise UsageError(f"data.classes, data.rest: no source has a class {lost[0]!r}{hint}")
    if options.rest is not None and options.rest not in names:
        raise UsageError(f"data.rest={options.rest!r} is none of data.classes: {', '.join(names[:12])}")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UsageError(f"the sources make {len(names)} classes; expected 2 to {MAX_CLASSES}")
    return names


def _classes(listed: FileListing) -> tuple[str, ...] | None:
    table = listed.class_tables.get(SEMANTIC)
    return listed.encoding.classes if table is None else table.names


def _maps(listed: FileListing, names: tuple[str, ...], rest: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (256,) class of the source -> class or 255, and (K,) which classes the source annotated."""
    own = _classes(listed) or ()
    others = IGNORE if rest is None else names.index(rest)
    table = np.full(256, IGNORE, np.uint8)
    for place, name in enumerate(own):
        table[place] = names.index(name) if name in names else others
    flags = np.array([name in own for name in names], bool)
    if rest is not None and not all(name in own for name in names if name != rest):
        flags[names.index(rest)] = False
    return table, flags


def _prefixed(
    listed: FileListing,
    part: Part,
    prefix: str,
    maps: tuple[np.ndarray, np.ndarray],
    rules: dict[Path, TruthRule],
) -> Part:
    """Return a source's split: its name before the keys of items, their labels read by the classes of the whole."""
    encoding = listed.encoding
    plain = encoding.rule or LabelRule(
        num_classes=len(_classes(listed) or ()),
        label_map=encoding.label_map,
        ignore=encoding.ignore,
        colors=encoding.colors,
    )
    masks = SparseLabels(rule=plain, words="label")
    items = []
    for item in part.items:
        path = item.file_of(SEMANTIC)
        truths = {} if path is None else {SEMANTIC: path}
        if path is not None and item.image in rules:
            raise UsageError(f"data.sources: {item.image} is in two of them; which labels count is not clear")
        if path is not None:
            inner = listed.truths[SEMANTIC] if SEMANTIC in item.truths else masks
            rules[item.image] = MappedLabels(inner=inner, table=maps[0], annotated=maps[1])
        items.append(Item(key=f"{prefix}/{item.key}", image=item.image, truths=truths))
    companions = {name: one for name, one in part.companions.items() if name == SEMANTIC}
    error = part.error or (companions[SEMANTIC].error if companions else None)
    return replace(part, items=tuple(items), companions={f"{prefix} {SEMANTIC}": one for one in companions.values()},
                   error=error)  # fmt: skip


def _joined(one: Part, other: Part) -> Part:
    return Part(
        items=(*one.items, *other.items),
        images_without_mask=(*one.images_without_mask, *other.images_without_mask),
        masks_without_image=(*one.masks_without_image, *other.masks_without_image),
        duplicates=(*one.duplicates, *other.duplicates),
        companions={**one.companions, **other.companions},
        error=one.error or other.error,
    )


def _palette(names: Sequence[str], listings: Sequence[FileListing]) -> tuple[Color, ...]:
    """Return the colour that the first source with it gives each class; made ones where a source gives none."""
    made = voc_palette(len(names))
    colors: dict[str, Color] = {}
    for listed in listings:
        table = listed.class_tables.get(SEMANTIC)
        palette = listed.encoding.palette if table is None else table.palette
        for name, color in zip(_classes(listed) or (), palette or (), strict=False):
            colors.setdefault(name, color)
    if any(name not in colors for name in names):
        return made
    return tuple(colors[name] for name in names)
