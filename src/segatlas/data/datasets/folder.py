"""Any folder of images and masks.

Layouts, `STEM` being equal for an image and its mask (subfolders allowed), endings free:

1. `ROOT/{train,val[,test]}/{images,masks}/STEM.*`
2. `ROOT/{images,masks}/{train,val[,test]}/STEM.*`
3. `ROOT/{images,masks}/STEM.*`: all of it is train; in these three, `masks` may be called `labels`
4. `data.lists={train: FILE, val: FILE}`: a CSV or text file of `image,mask` pairs for each split, see `lists.py`

Without a val part, a seeded fraction of train (`data.val_fraction`) is held out, and named in the log. In test, masks
may be missing. Class names come from `data.classes`, else `ROOT/classes.json`, `ROOT/classes.txt` or nnU-Net's
`ROOT/dataset.json`, else they are counted in the masks of all splits: `class_0` up to the largest label found. Objects
and segments beside the images: `folder_objects.py`; where they are, masks may be missing altogether.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.mask_values import Color, MaskCode
from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.color_tables import named_colors
from segatlas.data.datasets.folder_objects import InstancesOptions, objects_there, with_objects
from segatlas.data.datasets.foreign import brush_advice, masks_meant
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    fault_of_list,
    match_folders,
)
from segatlas.data.datasets.lists import Columns, read_items
from segatlas.data.datasets.paired import PairedFiles, empty_split
from segatlas.data.datasets.scan import count_classes, refuse_black_and_white
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, PanopticLabelsByFile
from segatlas.data.formats.classes import ClassNames, read_classes
from segatlas.data.formats.guards import IMAGE_ENDINGS
from segatlas.data.formats.images import read_header
from segatlas.data.formats.listing import has_images, is_image_name, walk_files
from segatlas.data.formats.masks import IGNORE, LOSSY, LabelRule
from segatlas.data.formats.palettes import voc_palette
from segatlas.data.formats.pixels import common_channels
from segatlas.errors import DataError, UsageError
from segatlas.printable import on_terminal
from segatlas.tasks import TRUTHS

logger = logging.getLogger(__name__)

MASKS, LABELS = "masks", "labels"
"""The folder of masks, and what many tools call it; a `labels` folder of text files is none."""

MOST_NAMED = 3
"""Images held out that a terminal names; log.txt names all."""

HEADERS_READ = 16
"""Images whose headers decide how many channels a set has."""


OTHER_NAMES_OF_SPLITS = {
    "train": ("training", "Train", "TRAIN"),
    "val": ("valid", "validation", "Val", "VAL", "dev"),
    "test": ("testing", "Test", "TEST"),
}
"""Split -> what other tools call its folder."""


class FolderOptions(Section):
    """What the masks of a folder hold, and which files make a split."""

    classes: tuple[str, ...] | None = Field(None, description="class names by index; default: found in the data")
    palette: tuple[Color, ...] | None = Field(None, description="RGB colour of each class")
    label_map: dict[int, int] | None = Field(None, description="raw mask value -> class index, or 255 for ignore")
    label_colors: dict[str, int] | None = Field(None, description="'r,g,b' in a colour mask -> class index or 255")
    ignore: tuple[MaskCode, ...] = Field(
        (255,), description="raw mask values that mean 'ignore'; nan in masks of floats"
    )
    lists: dict[Literal["train", "val", "test"], str] | None = Field(
        None, description="CSV or text file of image,mask pairs for each split"
    )
    val_fraction: float = Field(0.2, gt=0, lt=1, description="fraction of train held out where there is no val split")
    instances: InstancesOptions = Field(InstancesOptions(), description="what the files of objects mean")


class FolderData(PairedFiles):
    """One split of a folder of images and masks, in any of the four layouts (see the head of this file)."""

    name = "folder"
    targets: tuple[str, ...] = ("SemanticTarget", INSTANCES, SEGMENTS)
    options = FolderOptions
    layout = "train/images/ and train/masks/, or images/train/ and masks/train/, or images/ and masks/"

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all splits, whichever are asked for: classes are counted in the masks of all of them."""
        options = cfg.options(FolderOptions)
        encoding, faults = _declared(options, root)
        listing = FileListing(root=root, name=cls.name, parts={}, encoding=encoding, holds_out_val=True)
        if options.lists:
            parts, more = listed_parts(options.lists, root)
            return replace(listing, parts=parts, faults=(*faults, *more))
        folders = {split: found for split in SPLITS if (found := split_folders(root, split)) is not None}
        listing = replace(
            listing,
            parts={split: find_part(root, split) for split in folders},
            faults=(*faults, *_not_read(folders), *_misnamed_splits(root)),
            folders=folders,
        )
        if INSTANCES not in cls.targets:
            return listing
        rule = None if encoding.classes is None else _label_rule(options, len(encoding.classes))
        return with_objects(listing, options.instances, rule)

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split; classes and channels are the same for all splits of a root."""
        options = cfg.options(FolderOptions)
        self.listed = self.listing(cfg, root)
        sound = {split: _sound(split, part, self.target) for split, part in self.listed.parts.items()}
        parts = {split: items for split, items in sound.items() if items or options.lists}
        items = [item for name in SPLITS for item in parts.get(name, ())]
        if items and not self.gives(Part(items=tuple(items)), self.target):
            text = f"gives no {TRUTHS[self.target]}, which is asked for; docs/datasets.md says where objects can lie"
            raise DataError(text, root)
        self._set_classes(options, cfg.accept, root, items)
        known = parts.get("train") or next(iter(parts.values()), ())
        if cfg.channels is None:
            self.channels = _count_channels(known[:HEADERS_READ])
        return _choose(parts, self.split, options, root, seed)

    def _set_classes(self, options: FolderOptions, accept: Sequence[str], root: Path, items: Sequence[Item]) -> None:
        """Find the classes of the truth that is asked for: listed with it, declared, or counted in masks."""
        table = self.listed.class_tables.get(self.target)
        from_masks = self.target == "SemanticTarget" and self.listed.encoding.rule is None
        if table is not None and not from_masks:  # masks have their own codes, whatever lies beside them
            self.classes, self.palette, self.things = table.names, table.palette, table.things
            self._rule = LabelRule(num_classes=len(table.names))
            return
        label_map, colors = _tables(options)
        masks = [item.target for item in items if item.target is not None]
        has_codes = self.target != INSTANCES and self.listed.encoding.rule is None
        if has_codes and label_map is None and colors is None and IGNORE in options.ignore:
            refuse_black_and_white(masks, lossy=LOSSY in accept)
        self.classes, self.palette, self.unread = _find_classes(options, accept, root, masks, label_map, colors)
        self.things = self.listed.things
        self._rule = _label_rule(options, len(self.classes))

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the root; where lists are given it may be left out, and is then the folder of the first list."""
        lists = cfg.own("lists")
        if cfg.root is None and lists:
            return Path(next(iter(lists.values()))).expanduser().parent
        return super().prepare(cfg)

    @classmethod
    def reads(cls, cfg: DataConfig, root: Path) -> bool:
        """Whether files are listed, or the root is laid out as this dataset is."""
        return bool(cfg.own("lists")) or cls.fits(root)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has a split with a folder of images and one of masks."""
        parts = {split: split_folders(root, split) for split in SPLITS}
        return any(
            folders is not None and (folders[1].is_dir() or objects_there(root, split, folders[0]))
            for split, folders in parts.items()
        )

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule that the recipe gives: a label map or a colour table, and what is ignored."""
        maps = self.listed.encoding.rule
        return maps.rules[path] if isinstance(maps, PanopticLabelsByFile) else self._rule


def split_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """Return the folder of images and the folder of masks of a split, or None where it has no images."""
    for images, masks in (
        (root / split / "images", root / split / MASKS),
        (root / "images" / split, root / MASKS / split),
    ):
        if images.is_dir():
            return images, _mask_folder(masks, root)
    is_undivided = (root / "images").is_dir() and not any((root / "images" / name).is_dir() for name in SPLITS)
    return (root / "images", _mask_folder(root / MASKS, root)) if split == "train" and is_undivided else None


def sibling_folder(images: Path, root: Path, folder: str) -> Path:
    """Return the folder that lies to a split's folder of images as its folder of masks does."""
    return root.joinpath(*(folder if part == "images" else part for part in images.relative_to(root).parts))


def _mask_folder(masks: Path, root: Path) -> Path:
    """Return the folder of masks, or the one called `labels` in its place, if that holds images."""
    if masks.is_dir():
        return masks
    parts = [LABELS if part == MASKS else part for part in masks.relative_to(root).parts]
    labels = root.joinpath(*parts)
    return labels if has_images(labels) else masks


def find_part(root: str | Path, split: str) -> Part:
    """Match images and masks of a split by stem. Reads no file and raises nothing: faults are in the result."""
    folders = split_folders(Path(root), split)
    if folders is None:
        return Part()
    part = match_folders(*folders, split)
    if part.images_without_mask and not part.duplicates:
        part = replace(part, error=DataError(_missing_mask_text(folders[1], split, part), part.images_without_mask[0]))
    return part


def hold_out(keys: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Return the keys held out of train: the `fraction` whose hash with the seed is lowest, at least one, never all.

    The order of the keys and other keys' names do not matter, so that a set may grow without reshuffling.
    """
    ranked = sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
    return set(ranked[:count])


def tell_held_out(root: Path, held: Sequence[str], count: int, seed: int) -> None:
    """Say which of `count` keys are held out of train: in log.txt all of them, on a terminal the first ones."""
    text = f"no val part in {root}: held {len(held)} of {count} out of train (seed {seed}): "
    more = f" and {len(held) - MOST_NAMED} more" if len(held) > MOST_NAMED else ""
    shown = on_terminal(f"{text}{', '.join(held[:MOST_NAMED])}{more}")
    logger.info("%s%s", text, ", ".join(held), extra=shown)


def listed_parts(
    lists: Mapping[Literal["train", "val", "test"], str], root: Path, columns: Columns | None = None
) -> tuple[dict[str, Part], list[Fault]]:
    """Return the splits that lists make, and their faults. columns: the further inputs that lists must name."""
    parts: dict[str, Part] = {}
    faults = []
    for split, name in lists.items():
        path = Path(name).expanduser()
        path = root / path if (root / path).is_file() or not path.is_file() else path
        try:
            parts[split] = Part(items=read_items(path, root, split, columns))
        except DataError as error:
            form = ",".join(("image", *(columns.sources if columns else ()), "mask"))
            repair = f"correct the line: {form}, relative to the list's folder or to data.root"
            if not path.exists():
                repair = f"put the list into {root}, or correct data.lists"
            faults.append(fault_of_list(error, repair))
            parts[split] = Part(error=error)
    return parts, faults


def _label_rule(options: FolderOptions, count: int) -> LabelRule:
    """Return how masks become `count` classes."""
    label_map, colors = _tables(options)
    return LabelRule(num_classes=count, label_map=label_map, ignore=options.ignore, colors=colors)


def _sound(split: str, part: Part, target: str) -> tuple[Item, ...]:
    """Return the items of a part; DataError at its first fault that concerns the truth that is asked for."""
    companions = part.companions.get(target)
    error = part.error or (None if companions is None else companions.error)
    if error is not None:
        raise error
    if part.masks_without_image:
        count, first = len(part.masks_without_image), part.masks_without_image[0]
        logger.warning("%d mask(s) of %s have no image and are left out, the first is %s", count, split, first)
    return part.items


def _missing_mask_text(masks: Path, split: str, part: Part) -> str:
    path, count = part.images_without_mask[0], len(part.images_without_mask)
    if not masks.is_dir():
        other = masks_meant(masks)
        hint = "" if other is None else f", but {other}: rename it to {masks.name}"
        return f"has no mask: there is no folder {masks}{hint}"
    loose = {mask.stem: mask for mask in part.masks_without_image}
    total = count + len(part.items)
    told = f"has no mask in {masks} ({count} of {total} images of {split} have none)"
    if advice := brush_advice(part.masks_without_image):
        return f"{told}: {advice}"
    close = difflib.get_close_matches(path.stem, loose, n=1, cutoff=0.5)
    hint = f"; the nearest mask is {loose[close[0]]}, but stems must be equal" if close else ""
    return f"{told}{hint}"


def _count_channels(items: Sequence[Item]) -> int:
    """Return the channels that the images are read with. One that cannot be read is reported when it is loaded."""
    found = []
    for item in items:
        with suppress(DataError):
            found.append(read_header(item.image).channels)
    return common_channels(found)


def _choose(
    parts: dict[str, tuple[Item, ...]], split: str, options: FolderOptions, root: Path, seed: int
) -> tuple[Item, ...]:
    """Return the items of a split, val held out of train where it has no part of its own."""
    if split in ("train", "val") and "val" not in parts and len(parts.get("train", ())) > 1:
        held = hold_out([item.key for item in parts["train"]], options.val_fraction, seed)
        if split == "val":
            tell_held_out(root, sorted(held), len(parts["train"]), seed)
        return tuple(item for item in parts["train"] if (item.key in held) == (split == "val"))
    if not parts.get(split):
        expected = f"{split}/images/ or images/{split}/" if not options.lists else f"data.lists.{split}"
        raise empty_split(split, root, expected, [name for name, items in parts.items() if items])
    return parts[split]


def _tables(options: FolderOptions) -> tuple[dict[int, int] | None, dict[Color, int] | None]:
    """Return the label map and the colour table of a recipe, checked."""
    if options.label_colors is None:
        return options.label_map, None
    if options.label_map is not None:
        raise UsageError("data.label_map and data.label_colors are both set; colours already name class indices")
    return None, {parse_color(text): index for text, index in options.label_colors.items()}


def parse_color(text: str) -> Color:
    """Return the colour of a key of `data.label_colors`, 'r,g,b'. UsageError where it is none."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdigit() and int(part) <= 255 for part in parts):
        raise UsageError(f"data.label_colors: {text!r} is not a colour; expected 'r,g,b' with values 0..255")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _find_classes(
    options: FolderOptions,
    accept: Sequence[str],
    root: Path,
    masks: Sequence[Path],
    label_map: dict[int, int] | None,
    colors: dict[Color, int] | None,
) -> tuple[tuple[str, ...], tuple[Color, ...], tuple[DataError, ...]]:
    """Return names and colours by class index, and what could not be read where the classes are counted."""
    unread: tuple[DataError, ...] = ()
    table = ClassNames(names=options.classes) if options.classes else read_classes(root)
    if table is None:
        mapped = label_map or colors
        if mapped:
            count = 1 + max((index for index in mapped.values() if index != IGNORE), default=0)
        else:
            count, unread = count_classes(masks, options.ignore, root, lossy=LOSSY in accept)
        table = ClassNames(names=tuple(f"class_{index}" for index in range(count)))
    palette = options.palette or table.colors or voc_palette(len(table.names))
    if len(palette) != len(table.names):
        raise UsageError(f"data.palette has {len(palette)} colours for {len(table.names)} classes")
    return table.names, palette, unread


def _declared(options: FolderOptions, root: Path) -> tuple[LabelEncoding, list[Fault]]:
    """Return what the recipe and the file of classes declare, and the fault of that file."""
    table, faults = None, []
    try:
        table = read_classes(root)
    except DataError as error:
        repair = "correct it, and keep a copy: classes.txt has one name a line, classes.json a list of names"
        faults.append(fault_of_list(error, repair, kind="classes_file", root=root))
    colors = None
    if options.label_colors is not None:
        colors = {parse_color(text): index for text, index in options.label_colors.items()}
    encoding = LabelEncoding(
        classes=options.classes or (table.names if table else None),
        palette=options.palette or (table.colors if table else None),
        label_map=None if colors is not None else options.label_map,
        colors=colors,
        ignore=options.ignore,
        exported=named_colors(root),
    )
    return encoding, faults


def _misnamed_splits(root: Path) -> list[Fault]:
    """Name folders that are splits under another name, such as valid/: they are not read."""
    faults = []
    for split, names in OTHER_NAMES_OF_SPLITS.items():
        for name in names:
            folders = (root / name / "images", root / "images" / name)
            found = next((folder for folder in folders if has_images(folder)), None)
            if found is not None:
                fault = f"holds images, but the split is not called {split} and is not read"
                found_fault = Fault(
                    kind="not_read", severity="warning", files=(found,), fault=fault, repair=f"rename {name} to {split}"
                )
                faults.append(found_fault)
    return faults


def _not_read(folders: dict[str, tuple[Path, Path]]) -> list[Fault]:
    """Name what lies among images and masks but is not read, such as .gif masks."""
    files = tuple(
        path
        for pair in folders.values()
        for folder in pair
        if folder.is_dir()
        for path in walk_files(folder)
        if not is_image_name(path)
    )
    if not files:
        return []
    fault = f"their endings are not read (read: {' '.join(IMAGE_ENDINGS)})"
    repair = "save them as PNG, or move them elsewhere"
    return [Fault(kind="not_read", severity="warning", files=files, fault=fault, repair=repair)]
