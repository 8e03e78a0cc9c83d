"""Cityscapes: street scenes from 50 cities, fine annotations.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016             |
| classes  | 19 evaluated (train ids) of 34 labelled (label ids) and the licence plate (-1)                        |
| things   | person, rider, car, truck, bus, train, motorcycle, bicycle                                            |
| codes    | `*_labelIds.png`: 0..33, 255 = -1; `*_labelTrainIds.png`: 0..18, 255; not evaluated becomes 255       |
| images   | 2048 x 1024 PNG                                                                                       |
| splits   | train 2975, val 500, test 1525 (the labels of test are not public: all ignore)                          |
| source   | www.cityscapes-dataset.com, packages leftImg8bit and gtFine                                           |
| terms    | research, teaching and publications only, no redistribution                                           |

Objects: `*_instanceIds.png` beside the masks holds label id * 1000 + n for things that are told apart, and the label id
for all else; a thing's label id alone is a crowd. From it follow objects (of the 8 things, numbered 0..7 as published
networks have them) and panoptic segments; or the latter from `gtFine/cityscapes_panoptic_{split}.json` and its maps.

Layout: `leftImg8bit/{split}/{city}/NAME_leftImg8bit.png` and `gtFine/{split}/{city}/NAME_gtFine_labelIds.png`. Where
there is no `_labelIds` file, `_labelTrainIds` is read. For the test server, `to_label_ids` turns a prediction back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.annotations import Annotations
from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import (
    SPLITS,
    Companions,
    Fault,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    TruthClasses,
    TruthLook,
    match_stems,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, EitherRule
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.instances import OBJECTS_PER_CLASS, InstanceRule
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.data.formats.reading import read_shape, read_stored
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget, SegmentsTarget

LABELS: tuple[tuple[str, int, tuple[int, int, int]], ...] = (
    ("unlabeled", 255, (0, 0, 0)),
    ("ego vehicle", 255, (0, 0, 0)),
    ("rectification border", 255, (0, 0, 0)),
    ("out of roi", 255, (0, 0, 0)),
    ("static", 255, (0, 0, 0)),
    ("dynamic", 255, (111, 74, 0)),
    ("ground", 255, (81, 0, 81)),
    ("road", 0, (128, 64, 128)),
    ("sidewalk", 1, (244, 35, 232)),
    ("parking", 255, (250, 170, 160)),
    ("rail track", 255, (230, 150, 140)),
    ("building", 2, (70, 70, 70)),
    ("wall", 3, (102, 102, 156)),
    ("fence", 4, (190, 153, 153)),
    ("guard rail", 255, (180, 165, 180)),
    ("bridge", 255, (150, 100, 100)),
    ("tunnel", 255, (150, 120, 90)),
    ("pole", 5, (153, 153, 153)),
    ("polegroup", 255, (153, 153, 153)),
    ("traffic light", 6, (250, 170, 30)),
    ("traffic sign", 7, (220, 220, 0)),
    ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)),
    ("sky", 10, (70, 130, 180)),
    ("person", 11, (220, 20, 60)),
    ("rider", 12, (255, 0, 0)),
    ("car", 13, (0, 0, 142)),
    ("truck", 14, (0, 0, 70)),
    ("bus", 15, (0, 60, 100)),
    ("caravan", 255, (0, 0, 90)),
    ("trailer", 255, (0, 0, 110)),
    ("train", 16, (0, 80, 100)),
    ("motorcycle", 17, (0, 0, 230)),
    ("bicycle", 18, (119, 11, 32)),
)
"""(name, train id, RGB colour) by label id 0..33."""

_EVALUATED = tuple((label_id, *label) for label_id, label in enumerate(LABELS) if label[1] != IGNORE)
CLASSES = tuple(name for _, name, _, _ in _EVALUATED)
PALETTE = tuple(color for _, _, _, color in _EVALUATED)
THINGS = tuple(11 <= train_id <= 18 for _, _, train_id, _ in _EVALUATED)
"""person to bicycle: the eight evaluated classes of `hasInstances` in helpers/labels.py of cityscapesScripts 2.3.0."""

TRAIN_ID_OF_LABEL_ID = {label_id: train_id for label_id, (_, train_id, _) in enumerate(LABELS)} | {255: IGNORE}
LABEL_ID_OF_TRAIN_ID = {train_id: label_id for label_id, _, train_id, _ in _EVALUATED}

_LABEL_ID_RULE = LabelRule(num_classes=len(CLASSES), label_map=TRAIN_ID_OF_LABEL_ID)
_TRAIN_ID_RULE = LabelRule(num_classes=len(CLASSES))
_IMAGE_STEM = "_leftImg8bit"
_MASK_ENDINGS = ("_gtFine_labelIds", "_gtFine_labelTrainIds")
_IDS_ENDING = "_gtFine_instanceIds"
_LISTED_ENDINGS = ("_gtFine_leftImg8bit", "_leftImg8bit")
"""What names of images end with in panoptic files; the authors' script writes the first."""


_THINGS = TruthClasses(
    names=tuple(name for name, is_thing in zip(CLASSES, THINGS, strict=True) if is_thing),
    palette=tuple(color for color, is_thing in zip(PALETTE, THINGS, strict=True) if is_thing),
    things=(True,) * sum(THINGS),
)
OBJECT_CLASSES = {kind: kind - THINGS.index(True) for kind, is_thing in enumerate(THINGS) if is_thing}
"""Class -> class among the things."""

PANOPTIC_FILES = ("cityscapes_panoptic_{split}", "cityscapes_panoptic_{split}_trainId")
"""What the authors' script calls its file and folder, with label ids and with train ids; the first is read first."""


class Cityscapes(PairedFiles):
    """One split of Cityscapes with its 19 evaluated classes."""

    name = "cityscapes"
    targets = ("SemanticTarget", INSTANCES, SEGMENTS)
    layout = "leftImg8bit/{train,val}/CITY/ and gtFine/{train,val}/CITY/"
    classes = CLASSES
    palette = PALETTE
    things = THINGS

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has Cityscapes' two trees."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits; in test a mask may be missing. Label ids are read before train ids."""
        folders = {split: (root / "leftImg8bit" / split, root / "gtFine" / split) for split in splits}
        folders = {split: pair for split, pair in folders.items() if pair[0].is_dir()}
        parts = {split: _match(images, masks, split) for split, (images, masks) in folders.items()}
        found = Annotations(names=CLASSES, object_classes=OBJECT_CLASSES, endings=_LISTED_ENDINGS)
        for split, part in parts.items():
            files = (root / "gtFine" / f"{name.format(split=split)}.json" for name in PANOPTIC_FILES)
            listed = next((file for file in files if file.is_file()), None)
            if listed is not None and not any(INSTANCES in item.truths for item in part.items):
                parts[split] = found.add_maps(part, listed, listed.with_suffix(""), as_masks=False)
        maps = found.truths()
        ids = frozenset(item.image for part in parts.values() for item in part.items if INSTANCES in item.truths)
        parts = {split: found.with_things(part) for split, part in parts.items()}
        has_label_ids = any((root / "gtFine").rglob(f"*{_MASK_ENDINGS[0]}.png"))
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            folders=folders,
            faults=(*_other_images(folders), *found.faults),
            encoding=LabelEncoding(
                classes=CLASSES, palette=PALETTE, label_map=TRAIN_ID_OF_LABEL_ID if has_label_ids else None
            ),
            truths={
                name: EitherRule(first=InstanceIds(name=name), second=maps[name], images=ids)
                if name in maps
                else InstanceIds(name=name)
                for name in (INSTANCES, SEGMENTS)
            },
            class_tables={INSTANCES: _THINGS},
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"leftImg8bit/{split}/CITY/*{_IMAGE_STEM}.png"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of label ids or of train ids, as the file's name says."""
        return _TRAIN_ID_RULE if path.name.endswith("_labelTrainIds.png") else _LABEL_ID_RULE


def to_label_ids(labels: np.ndarray) -> np.ndarray:
    """Turn a label map (H, W) of train ids 0..18, 255 into label ids as the test server wants them; 255 becomes 0."""
    outside = sorted(set(np.unique(labels).tolist()) - set(LABEL_ID_OF_TRAIN_ID) - {IGNORE})
    if outside:
        raise DataError(f"value {outside[0]} is not a train id; expected 0..18 or 255")
    table = np.zeros(256, np.uint8)
    for train_id, label_id in LABEL_ID_OF_TRAIN_ID.items():
        table[train_id] = label_id
    return table[labels]


def _match(images: Path, masks: Path, split: str) -> Part:
    files = {
        key.removesuffix(_IMAGE_STEM): paths for key, paths in _list_png(images).items() if key.endswith(_IMAGE_STEM)
    }
    found = _list_png(masks)
    labels: dict[str, list[Path]] = {}
    for ending in reversed(_MASK_ENDINGS):  # the first one is laid over the others
        labels |= {key.removesuffix(ending): paths for key, paths in found.items() if key.endswith(ending)}
    part = match_stems(
        files,
        labels,
        needs_mask=split != "test",
        expected=lambda key: masks / f"{key}{_MASK_ENDINGS[0]}.png",
    )
    ids = {key.removesuffix(_IDS_ENDING): paths[0] for key, paths in found.items() if key.endswith(_IDS_ENDING)}
    if not ids:
        return part
    items = tuple(
        replace(item, truths=dict.fromkeys((INSTANCES, SEGMENTS), ids[item.key])) if item.key in ids else item
        for item in part.items
    )
    lost = tuple(item.image for item in items if item.target is not None and not item.truths)
    error = DataError(f"has no map of objects *{_IDS_ENDING}.png in {masks}", lost[0]) if lost else None
    missing = Companions(label="instanceIds", words="map of objects", folder=masks, missing=lost, error=error)
    return replace(part, items=items, companions={INSTANCES: missing, SEGMENTS: replace(missing, missing=())})


@dataclass(frozen=True, kw_only=True)
class InstanceIds:
    """Objects and segments of `*_instanceIds.png`, see the head of this file. name: which of the two."""

    name: str

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget | SegmentsTarget:
        """Return the truth of an item."""
        path = item.truths[self.name]
        codes = decoder.file(path, "instance ids", lambda data: _instance_ids(data, path))
        return _target_of_ids(codes, self.name, path)

    def size(self, item: Item) -> tuple[int, int]:
        """Return the size that the header says."""
        shape = read_shape(item.truths[self.name])
        return shape.height, shape.width

    def look(self, item: Item) -> TruthLook:
        """Return what the file shows."""
        path = item.truths[self.name]
        codes = _instance_ids(read_bytes(path), path)
        size = (codes.shape[0], codes.shape[1])
        try:
            target = _target_of_ids(codes, self.name, path)
        except DataError as error:
            return TruthLook(size=size, misfit=str(error).removeprefix(f"{path}: "))
        return TruthLook(size=size, objects=dict(Counter(np.asarray(target.classes).tolist())))


def _instance_ids(data: bytes, path: Path) -> np.ndarray:
    return InstanceRule(num_classes=len(LABELS)).codes(read_stored(data, path), path)


def _target_of_ids(codes: np.ndarray, name: str, path: Path) -> InstancesTarget | SegmentsTarget:
    """Return objects or segments of numbers (H, W), by rising number."""
    values = np.unique(codes).astype(np.int64)
    kinds = np.where(values < OBJECTS_PER_CLASS, values, values // OBJECTS_PER_CLASS)
    wrong = values[(kinds < 0) | (kinds >= len(LABELS))]
    if wrong.size:
        raise DataError(f"holds {wrong[0]}, which is no label id 0..{len(LABELS) - 1} nor label id * 1000 + n", path)
    classes = np.array([TRAIN_ID_OF_LABEL_ID.get(kind, IGNORE) for kind in kinds.tolist()], np.int64)
    is_thing = (classes != IGNORE) & np.array([kind != IGNORE and THINGS[kind] for kind in classes.tolist()], bool)
    crowd = is_thing & (values < OBJECTS_PER_CLASS)
    if name == INSTANCES:
        masks = codes == values[is_thing][:, None, None]
        return InstancesTarget(masks, classes[is_thing] - THINGS.index(True), crowd[is_thing])
    kept = classes != IGNORE
    rows = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    ids = rows[np.searchsorted(values, codes)]
    return SegmentsTarget(ids, classes[kept], is_thing[kept], crowd[kept])


def _other_images(folders: Mapping[str, tuple[Path, Path]]) -> tuple[Fault, ...]:
    """Name the images that are not called as Cityscapes' images are."""
    files = []
    for images, _ in folders.values():
        known = {path for paths in _list_png(images).values() for path in paths if path.stem.endswith(_IMAGE_STEM)}
        files += [path for paths in list_images(images).values() for path in paths if path not in known]
    if not files:
        return ()
    fault = f"are not read: images are CITY/NAME{_IMAGE_STEM}.png"
    return (Fault(kind="not_read", severity="warning", files=tuple(files), fault=fault, repair="rename or move them"),)


def _list_png(folder: Path) -> dict[str, list[Path]]:
    """Return the PNG files in the folders of cities, by key."""
    listed = list_images(folder).items()
    found = {key: [path for path in paths if path.suffix == ".png"] for key, paths in listed if key.count("/") == 1}
    return {key: paths for key, paths in found.items() if paths}
