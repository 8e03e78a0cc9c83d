"""A folder of images whose training labels say less than a class for each pixel.

Images, classes and masks lie as in `folder`; beside the images of a split lies one of these:

    ROOT/train/scribbles/STEM.png        class indices where somebody drew, 255 everywhere else
    ROOT/train/points/STEM.png           the same with single pixels
    ROOT/train/boxes.csv                 image,class,x0,y0,x1,y1; or boxes.json as COCO has it, or boxes/STEM.xml as VOC
    ROOT/train/labels.csv                image,classes: names with `;` between them
    ROOT/train/masks/ and classes_labelled.csv   image,classes: the classes that were looked for in these masks

With `ROOT/images/train/` folders lie beside it as `ROOT/scribbles/train/`, and tables in the root as `boxes_train.csv`.
Two kinds need nothing but are asked for: `folders`, where images lie as `images/CLASS/STEM.*`, and `mask_labels`, which
takes from masks only which classes they show. Val and test have whole masks, as scores need them.

What a label means stays: 0..K-1, or 255 where nothing is known. Boxes become labels in which they are filled, the
smaller over the larger; so the losses that know of boxes read them, and those that do not take them for masks.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.folder import FolderData, FolderOptions, sibling_folder, split_folders
from segatlas.data.datasets.listing import (
    SPLITS,
    Companions,
    Fault,
    FileListing,
    Item,
    Part,
    TruthRule,
    fault_of_list,
)
from segatlas.data.datasets.truths import INSTANCES, EitherRule
from segatlas.data.datasets.weak_truths import (
    SEMANTIC,
    Box,
    BoxLabels,
    BoxObjects,
    ClassesOfImages,
    ClassesOfMasks,
    PartialLabels,
    RuleOfImage,
    SparseLabels,
)
from segatlas.data.formats.classes import background_of
from segatlas.data.formats.label_tables import LabelledBox, image_key, read_box_table, read_class_table, read_voc_boxes
from segatlas.data.formats.listing import list_images, walk_files
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.errors import DataError, UsageError

Kind = Literal["masks", "partial", "scribbles", "points", "boxes", "labels", "folders", "mask_labels"]
SPARSE: dict[Kind, str] = {"scribbles": "scribble", "points": "point"}
"""Kinds that are masks of few pixels -> what one label is called."""

FOUND: tuple[Kind, ...] = ("scribbles", "points", "boxes", "labels", "partial")
"""Kinds that files tell of."""

TABLES = {"boxes": ("boxes.csv", "boxes.json"), "labels": ("labels.csv",), "partial": ("classes_labelled.csv",)}
"""Kind -> its tables, the first that is there is read."""

MOST_TOLD = 5
ONE_NAME = "call each image by one name, its path below the folder of images"


class WeakOptions(FolderOptions):
    """Which labels of a folder are read, and what lies outside boxes."""

    kind: Kind | None = Field(
        None,
        description="which labels train has: masks, partial, scribbles, points, boxes, labels, folders (images/CLASS/) "
        "or mask_labels (of masks the classes alone); default: the one kind that is there",
    )
    background: str | None = Field(
        None,
        description="class of everything else, which every image shows and which lies outside boxes; 'none'; "
        "default: one that is called background, ground, other or the like",
    )
    outside: Literal["background", "ignore"] = Field(
        "background",
        description="what pixels outside all boxes are: of the background where there is one, or not known",
    )

    grow: int = Field(
        0,
        ge=0,
        le=100,
        description="pixels by which points and scribbles are widened to all sides, so that no resize loses them",
    )


@dataclass(kw_only=True)
class WeakLabels:
    """What was found of all splits: rules and faults. names: of the classes."""

    names: tuple[str, ...]
    background: int | None
    outside: int
    rule: LabelRule
    grow: int
    rules: dict[Path, TruthRule] = field(default_factory=dict)
    objects: dict[Path, TruthRule] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def index(self, name: str) -> int | None:
        """Return the class of a name; None where there is none such."""
        return self.names.index(name) if name in self.names else None

    def tell(self, kind: str, path: Path, texts: Sequence[str], repair: str) -> None:
        """Add a fault of a table, some of its rows named."""
        if texts:
            more = f"; and {len(texts) - MOST_TOLD} more" if len(texts) > MOST_TOLD else ""
            text = "; ".join(texts[:MOST_TOLD]) + more
            self.faults.append(Fault(kind=kind, files=(path,), fault=text, repair=repair))

    def unknown(self, name: str) -> str:
        """Return in words that no class has a name."""
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f", nearest {close[0]!r}" if close else ""
        return f"{name!r} is none of the {len(self.names)} classes{hint}"


class Weak(FolderData):
    """One split of a folder with weak labels (see the head of this file)."""

    name = "weak"
    targets = (SEMANTIC, INSTANCES)
    options = WeakOptions
    layout = "train/images/ with train/scribbles/, points/, boxes.csv, labels.csv or masks/ and classes_labelled.csv"

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has images with a kind of weak labels beside them."""
        found = [(split, folders) for split in SPLITS if (folders := split_folders(root, split)) is not None]
        return any(kinds_there(root, split, images) for split, (images, _) in found)

    @classmethod
    def reads(cls, cfg: DataConfig, root: Path) -> bool:
        """Whether the files are there; kinds that files do not tell of need images alone."""
        stated = cfg.options(WeakOptions).kind
        return cls.fits(root) or (stated is not None and split_folders(root, "train") is not None)

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all splits, each with the labels of its kind."""
        options = cfg.options(WeakOptions)
        if options.lists:
            raise UsageError("data.lists: not with data.name=weak, whose files are matched by stem; remove it")
        listed = replace(super().listing(cfg, root, splits), name=cls.name, holds_out_val=False)
        names = listed.encoding.classes
        if names is None:
            error = DataError("weak labels do not say which classes there are: name them in classes.json", root)
            parts = {split: Part(error=error) for split in listed.parts}
            fault = fault_of_list(error, "add classes.json, or data.classes=[...]", kind="classes_file", root=root)
            return replace(listed, parts=parts, faults=(*listed.faults, fault))
        background = background_of(names, options.background)
        state = WeakLabels(
            names=names,
            background=background,
            outside=IGNORE if background is None or options.outside == "ignore" else background,
            rule=_rule(listed, len(names)),
            grow=options.grow,
        )
        parts = dict(listed.parts)
        for split, (images, masks) in listed.folders.items():
            parts[split] = _part_of(state, parts[split], root, split, images, masks, options.kind)
        truths = dict(listed.truths)
        if state.rules:
            truths[SEMANTIC] = RuleOfImage(rules=state.rules)
        if state.objects:
            own = RuleOfImage(rules=state.objects, name=INSTANCES)
            others = truths.get(INSTANCES)
            truths[INSTANCES] = (
                own if others is None else EitherRule(first=own, second=others, images=frozenset(state.objects))
            )
        return replace(listed, parts=parts, truths=truths, faults=(*listed.faults, *state.faults))

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split. DataError where val is asked for and has no part of its own."""
        if self.split == "val" and split_folders(root, "val") is None:
            text = "has no val part, and none is held out of labels that say too little for scores: add val/ with masks"
            raise DataError(text, root)
        return super().open(cfg, root, seed)


def kinds_there(root: Path, split: str, images: Path) -> list[Kind]:
    """Return the kinds of weak labels that lie beside the images of a split."""
    found: list[Kind] = []
    for kind in FOUND:
        folder = sibling_folder(images, root, kind)
        has_folder = kind in (*SPARSE, "boxes") and folder.is_dir()
        if has_folder or table_of(root, split, images, kind) is not None:
            found.append(kind)
    return found


def table_of(root: Path, split: str, images: Path, kind: Kind) -> Path | None:
    """Return the table of a kind for a split; None where there is none."""
    for name in TABLES.get(kind, ()):
        stem, ending = name.split(".")
        places = [images.parent / name] if images.parent.name == split else []
        places += [root / f"{stem}_{split}.{ending}"]
        if split == "train":
            places.append(root / name)
        if (found := next((place for place in places if place.is_file()), None)) is not None:
            return found
    return None


def _part_of(
    state: WeakLabels, part: Part, root: Path, split: str, images: Path, masks: Path, stated: Kind | None
) -> Part:
    """Return a split with the labels that it is trained or scored with."""
    there = kinds_there(root, split, images)
    has_masks = masks.is_dir()
    kind: Kind = "masks"
    if split != "train" and has_masks:
        kind = "partial" if "partial" in there else "masks"
    elif split == "train" and stated is not None:
        kind = stated
        if kind in FOUND and kind not in there:
            text = f"has no {kind} of {split}, which data.kind asks for; there is: {', '.join(there) or 'none'}"
            return replace(part, error=DataError(text, images.parent))
    elif len(there) > 1:
        text = f"has several kinds of labels of {split}: {', '.join(there)}; say which in data.kind"
        return replace(part, error=DataError(text, images.parent))
    elif there:
        kind = there[0]
    if kind == "masks":
        return part
    if split != "train" and kind != "partial":
        state.faults.append(_weak_scores(split, kind, images))
    files = list_images(images)
    items = tuple(Item(key=key, image=paths[0]) for key, paths in files.items())
    duplicates = tuple(path for paths in files.values() for path in paths[1:])
    error = DataError("has the stem of another file beside it; keep one of them", duplicates[0]) if duplicates else None
    plain = Part(items=items, duplicates=duplicates, error=error)
    try:
        return _READERS[kind](state, plain, part, root, split, images)
    except DataError as fault:
        state.faults.append(fault_of_list(fault, "correct the file, or write it anew", kind="annotation_file"))
        return replace(plain, error=fault)


def _weak_scores(split: str, kind: Kind, images: Path) -> Fault:
    of = "boxes that are filled" if kind == "boxes" else "classes of images" if kind == "labels" else kind
    text = f"{split} has no whole masks, so its scores are against {of}"
    repair = f"add masks of {split}; those of some of its images, and these images alone, are better than none"
    return Fault(kind="weak_scores", severity="warning", files=(images,), fault=text, repair=repair)


def _sparse(kind: Kind) -> Callable[..., Part]:
    def read(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
        folder = sibling_folder(images, root, kind)
        found = list_images(folder)
        full = {item.image: item.target for item in masked.items if item.target is not None}
        rule = SparseLabels(rule=state.rule, words=SPARSE[kind], grow=state.grow, full=full)
        return _with_files(state, part, kind, SPARSE[kind], folder, found, dict.fromkeys(found, rule))

    return read


def _partial(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
    if masked.error is not None:
        return masked
    path = table_of(root, split, images, "partial")
    assert path is not None
    flags = annotated_by_image(state, read_class_table(path), part.items, path)
    rule = PartialLabels(rule=state.rule, annotated=flags)
    state.rules |= {item.image: rule for item in masked.items if item.target is not None}
    items = tuple(
        item if item.target is None else replace(item, target=None, truths={**item.truths, SEMANTIC: item.target})
        for item in masked.items
    )
    files = Companions(label="masks of some classes", words="mask", folder=path.parent)
    return replace(masked, items=items, companions={**masked.companions, SEMANTIC: files})


def annotated_by_image(
    state: WeakLabels, table: Mapping[str, tuple[tuple[str, ...], int]], items: Sequence[Item], path: Path
) -> dict[Path, tuple[bool, ...]]:
    """Return by image which classes were annotated: as the first row says whose name or pattern (`a/*`) it fits."""
    if not table:
        raise DataError("names no image; delete it where all classes were looked for in all of them", path)
    flags: dict[str, tuple[bool, ...]] = {}
    lost, nowhere = [], []
    for pattern, (names, line) in table.items():
        wrong = [name for name in names if state.index(name) is None]
        lost += [f"line {line}: {state.unknown(name)}" for name in wrong]
        if not any(_fits(pattern, item.key) for item in items):
            nowhere.append(f"line {line}: no image {pattern}")
        flags[pattern] = tuple(name in names for name in state.names)
    state.tell("unknown_class", path, lost, "correct the names, or add the classes to classes.json")
    state.tell("unknown_image", path, nowhere, "add the images, or delete the rows")
    if lost or nowhere:
        raise DataError((lost or nowhere)[0], path)
    found = {}
    for item in items:
        known = next((own for one, own in flags.items() if _fits(one, item.key)), None)
        if known is not None and not all(known):
            found[item.image] = known
    return found


def _boxes(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
    path = table_of(root, split, images, "boxes")
    if path is not None:
        table = read_box_table(path)
        state.tell("bad_annotation", path, table.faults, "correct the entries, or delete them")
        named, places = dict(table.boxes), dict.fromkeys(table.boxes, path)
        first_fault = DataError(table.faults[0], path) if table.faults else None
    else:
        folder, first_fault = sibling_folder(images, root, "boxes"), None
        files = [file for file in walk_files(folder) if file.suffix.lower() == ".xml"]
        places = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
        named, path = {key: read_voc_boxes(file) for key, file in places.items()}, folder
    own, lost, twice = _of_items(part.items, named)
    state.tell("bad_annotation", path, twice, ONE_NAME)
    state.tell("unknown_image", path, [f"no image {name} in {split}" for name in lost], "add it, or delete its boxes")
    boxes: dict[Path, tuple[Box, ...]] = {}
    unknown: list[str] = []
    for item in part.items:
        found = named[own[item.key]] if item.key in own else ()
        boxes[item.image] = _as_boxes(state, found, unknown)
    state.tell("unknown_class", path, unknown, "correct the names, or add the classes to classes.json")
    error = part.error or first_fault
    for texts in (twice, unknown, [f"no image {name} in {split}" for name in lost]):
        if error is None and texts:
            error = DataError(texts[0], path)
    full = {item.image: item.target for item in masked.items if item.target is not None}
    labels = BoxLabels(entries=boxes, background=state.outside, rule=state.rule, full=full)
    objects = BoxObjects(entries=boxes)
    missing = [item for item in part.items if item.key not in own]
    state.rules |= dict.fromkeys(boxes, labels)
    state.objects |= dict.fromkeys(boxes, objects)
    of_item = {item.key: places.get(own.get(item.key, ""), path) for item in part.items}
    items = tuple(
        replace(item, truths={SEMANTIC: of_item[item.key], INSTANCES: of_item[item.key]}) for item in part.items
    )
    if missing and error is None:
        error = DataError(f"has no row in {path}; an image without a box has one with its name alone", missing[0].image)
    files_of = Companions(
        label="images with boxes",
        words="box",
        folder=path,
        missing=tuple(item.image for item in missing),
        is_table=path.is_file(),
    )
    return replace(part, items=items, companions={SEMANTIC: files_of}, error=error)


def _as_boxes(state: WeakLabels, found: Sequence[LabelledBox], unknown: list[str]) -> tuple[Box, ...]:
    boxes = []
    for one in found:
        kind = state.index(one.name)
        if kind is None:
            unknown.append(f"{one.place}: {state.unknown(one.name)}")
        else:
            boxes.append(Box(kind=kind, corners=one.corners, place=one.place, crowd=one.crowd, drawn_on=one.size))
    return tuple(boxes)


def _labels(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
    path = table_of(root, split, images, "labels")
    assert path is not None
    table = read_class_table(path)
    own, lost, twice = _of_items(part.items, table)
    state.tell("bad_annotation", path, twice, ONE_NAME)
    texts = [f"line {table[name][1]}: no image {name} in {split}" for name in lost]
    state.tell("unknown_image", path, texts, "add the images, or delete their rows")
    unknown = [f"line {line}: {state.unknown(name)}" for names, line in table.values()
               for name in names if state.index(name) is None]  # fmt: skip
    state.tell("unknown_class", path, unknown, "correct the names, or add the classes to classes.json")
    missing = [item for item in part.items if item.key not in own]
    error = part.error or next((DataError(text, path) for text in (*twice, *unknown, *texts)), None)
    if missing and error is None:
        error = DataError(f"has no row in {path}", missing[0].image)
    entries = {item.image: _present(state, table[own[item.key]][0]) for item in part.items if item.key in own}
    state.rules |= dict.fromkeys(entries, ClassesOfImages(entries=entries))
    items = tuple(replace(item, truths={SEMANTIC: path}) if item.image in entries else item for item in part.items)
    files = Companions(
        label="images with classes",
        words="row",
        folder=path,
        missing=tuple(item.image for item in missing),
        is_table=True,
    )
    return replace(part, items=items, companions={SEMANTIC: files}, error=error)


def _folders(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
    entries, lost = {}, []
    for item in part.items:
        folder = item.key.split("/")[0] if "/" in item.key else ""
        if state.index(folder) is None:
            lost.append(f"{item.key}: {state.unknown(folder)}")
        else:
            entries[item.image] = _present(state, (folder,))
    state.tell("unknown_class", images, lost, "call the folders of images as their classes: images/CLASS/STEM.*")
    state.rules |= dict.fromkeys(entries, ClassesOfImages(entries=entries))
    items = tuple(replace(item, truths={SEMANTIC: item.image.parent}) for item in part.items if item.image in entries)
    return replace(part, items=items, error=part.error or (DataError(lost[0], images) if lost else None))


def _mask_labels(state: WeakLabels, part: Part, masked: Part, root: Path, split: str, images: Path) -> Part:
    rule = ClassesOfMasks(rule=state.rule)
    state.rules |= {item.image: rule for item in masked.items if item.target is not None}
    items = tuple(
        item if item.target is None else replace(item, target=None, truths={SEMANTIC: item.target})
        for item in masked.items
    )
    return replace(masked, items=items)


_READERS: dict[Kind, Callable[[WeakLabels, Part, Part, Path, str, Path], Part]] = {
    "scribbles": _sparse("scribbles"),
    "points": _sparse("points"),
    "partial": _partial,
    "boxes": _boxes,
    "labels": _labels,
    "folders": _folders,
    "mask_labels": _mask_labels,
}


def _with_files(
    state: WeakLabels,
    part: Part,
    label: str,
    words: str,
    folder: Path,
    found: Mapping[str, Sequence[Path]],
    rules: Mapping[str, TruthRule],
) -> Part:
    """Return a split whose items have the file of their stem in a folder as labels, and what does not fit there."""
    items = []
    for item in part.items:
        if item.key in found:
            item = replace(item, truths={SEMANTIC: found[item.key][0]})
            state.rules[item.image] = rules[item.key]
        items.append(item)
    missing = [item.image for item in part.items if item.key not in found]
    known = {item.key for item in part.items}
    doubled = tuple(path for paths in found.values() for path in paths[1:])
    error = part.error
    if error is None and doubled:
        error = DataError("has the stem of another file beside it; keep one of them", doubled[0])
    elif error is None and missing:
        error = DataError(f"has no {label} in {folder}", missing[0])
    files = Companions(
        label=label,
        words=words,
        folder=folder,
        missing=tuple(missing),
        extra=tuple(path for key, paths in found.items() if key not in known for path in paths),
        duplicates=doubled,
        error=error,
    )
    return replace(part, items=tuple(items), companions={SEMANTIC: files}, error=error)


def _of_items(items: Sequence[Item], table: Mapping[str, object]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return what a table calls the image of each key (its path below the folder, or its name).

    And names of no image, and a text for each image that has two names.
    """
    by_name: dict[str, list[str]] = {}
    for item in items:
        by_name.setdefault(item.key.rpartition("/")[2], []).append(item.key)
    keys = {item.key for item in items}
    own: dict[str, str] = {}
    lost, twice = [], []
    for name in table:
        short = by_name.get(name.rpartition("/")[2], [])
        key = name if name in keys else short[0] if len(short) == 1 else None
        if key is None:
            lost.append(name)
        elif key in own:
            twice.append(f"{own[key]} and {name} are both image {key}")
        else:
            own[key] = name
    return own, lost, twice


def _fits(pattern: str, key: str) -> bool:
    return key == pattern or fnmatchcase(key, pattern) or key == image_key(pattern)


def _present(state: WeakLabels, names: Sequence[str]) -> tuple[bool, ...]:
    """Return which classes are there; the background always is."""
    return tuple(name in names or place == state.background for place, name in enumerate(state.names))


def _rule(listed: FileListing, count: int) -> LabelRule:
    encoding = listed.encoding
    return LabelRule(num_classes=count, label_map=encoding.label_map, ignore=encoding.ignore, colors=encoding.colors)
