"""ADE20K, scene parsing with 150 classes: photographs of indoor and outdoor scenes.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017                                         |
| classes  | 150 of the about 3000 of the full annotation, background is none of them                              |
| things   | the 100 classes of the instance track of the Places Challenge 2017                                    |
| codes    | challenge tree: 1..150, 0 = other; full tree: colours, see below; other becomes 255                   |
| images   | JPEG, in the challenge tree reduced to a short side of at least 512                                   |
| splits   | train 20210, val 2000 (folders training, validation; test labels are not public)                      |
| source   | groups.csail.mit.edu/vision/datasets/ADE20K, ADEChallengeData2016 and ADE20K_2016_07_26               |
| terms    | non-commercial research and education                                                                 |

Objects: `annotations_instance/{training,validation}/STEM.png` of the instance track in the challenge tree (R is the
class 1..100 in the order of the things, G the number of the object), or `ade20k_instance_{train,val}.json` in COCO's
form. Segments: `ade20k_panoptic_{train,val}.json` and its maps, else objects and masks together. Objects have the 100
things as classes, as published networks have them.

Layouts, at the root or in the folder of the archive's name in it:

1. Challenge: `images/{training,validation,testing}/STEM.jpg` and `annotations/{training,validation}/STEM.png`.
2. Full (2016): `images/{training,validation}/.../STEM.jpg` with `STEM_seg.png` beside it. The object of a pixel is
   `R // 10 * 256 + G`; which objects make one of the 150 classes is the third column of `LABELS` (the authors'
   `mapFromADE.txt`). The 2021 release numbers its objects anew: there, put its own `mapFromADE.txt` (lines "class
   object", classes from 1) at the root.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.annotations import Annotations
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
    fault_of_list,
    match_folders,
    match_stems,
    with_companions,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, EitherRule, MaskLabels, Painted
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule, decode_raw
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError
from segatlas.files import read_text
from segatlas.structures import InstancesTarget

Labels = Sequence[tuple[str, tuple[int, int, int], tuple[int, ...]]]
LABELS: Labels = (
    ("wall", (120, 120, 120), (2978,)),
    ("building", (180, 120, 120), (312,)),
    ("sky", (6, 230, 230), (2420,)),
    ("floor", (80, 50, 50), (976,)),
    ("tree", (4, 200, 3), (2855,)),
    ("ceiling", (120, 120, 80), (447,)),
    ("road", (140, 140, 140), (2131,)),
    ("bed", (204, 5, 255), (165,)),
    ("windowpane", (230, 230, 230), (3055,)),
    ("grass", (4, 250, 7), (1125,)),
    ("cabinet", (224, 5, 255), (350,)),
    ("sidewalk", (235, 255, 7), (2377,)),
    ("person", (150, 5, 61), (1831,)),
    ("earth", (120, 120, 70), (838,)),
    ("door", (8, 255, 51), (774, 783)),
    ("table", (255, 6, 82), (2684,)),
    ("mountain", (143, 255, 140), (1610,)),
    ("plant", (204, 255, 4), (1910,)),
    ("curtain", (255, 51, 7), (687,)),
    ("chair", (204, 70, 3), (471,)),
    ("car", (0, 102, 200), (401,)),
    ("water", (61, 230, 250), (2994,)),
    ("painting", (255, 6, 51), (1735,)),
    ("sofa", (11, 102, 255), (2473,)),
    ("shelf", (255, 7, 71), (2329,)),
    ("house", (255, 9, 224), (1276,)),
    ("sea", (9, 7, 230), (2264,)),
    ("mirror", (220, 220, 220), (1564,)),
    ("rug", (255, 9, 92), (2178,)),
    ("field", (112, 9, 255), (913,)),
    ("armchair", (8, 255, 214), (57,)),
    ("seat", (7, 255, 224), (2272,)),
    ("fence", (255, 184, 6), (907,)),
    ("desk", (10, 255, 71), (724,)),
    ("rock", (255, 41, 10), (2138,)),
    ("wardrobe", (7, 255, 255), (2985, 533)),
    ("lamp", (224, 255, 8), (1395,)),
    ("bathtub", (102, 8, 255), (155,)),
    ("railing", (255, 61, 6), (2053,)),
    ("cushion", (255, 194, 7), (689,)),
    ("base", (255, 122, 8), (137,)),
    ("box", (0, 255, 20), (266,)),
    ("column", (255, 8, 41), (581,)),
    ("signboard", (255, 5, 153), (2380,)),
    ("chest of drawers", (6, 51, 255), (491,)),
    ("counter", (235, 12, 255), (627,)),
    ("sand", (160, 150, 20), (2212,)),
    ("sink", (0, 163, 255), (2388,)),
    ("skyscraper", (140, 140, 140), (2423,)),
    ("fireplace", (250, 10, 15), (943,)),
    ("refrigerator", (20, 255, 0), (2096,)),
    ("grandstand", (31, 255, 0), (1121,)),
    ("path", (255, 31, 0), (1788,)),
    ("stairs", (255, 224, 0), (2530,)),
    ("runway", (153, 255, 0), (2185,)),
    ("case", (0, 0, 255), (420,)),
    ("pool table", (255, 71, 0), (1948,)),
    ("pillow", (0, 235, 255), (1869,)),
    ("screen door", (0, 173, 255), (2251,)),
    ("stairway", (31, 0, 255), (2531,)),
    ("river", (11, 200, 200), (2128,)),
    ("bridge", (255, 82, 0), (294,)),
    ("bookcase", (0, 255, 245), (239,)),
    ("blind", (0, 61, 255), (212,)),
    ("coffee table", (0, 255, 112), (571,)),
    ("toilet", (0, 255, 133), (2793,)),
    ("flower", (255, 0, 0), (978,)),
    ("book", (255, 163, 0), (236,)),
    ("hill", (255, 102, 0), (1240,)),
    ("bench", (194, 255, 0), (181,)),
    ("countertop", (0, 143, 255), (629,)),
    ("stove", (51, 255, 0), (2598,)),
    ("palm", (0, 82, 255), (1744,)),
    ("kitchen island", (0, 255, 41), (1374,)),
    ("computer", (0, 255, 173), (591,)),
    ("swivel chair", (10, 0, 255), (2679,)),
    ("boat", (173, 255, 0), (223,)),
    ("bar", (0, 255, 153), (123,)),
    ("arcade machine", (255, 92, 0), (47,)),
    ("hovel", (255, 0, 255), (1282,)),
    ("bus", (255, 0, 245), (327,)),
    ("towel", (255, 0, 102), (2821,)),
    ("light", (255, 173, 0), (1451,)),
    ("truck", (255, 0, 20), (2880,)),
    ("tower", (255, 184, 184), (2828,)),
    ("chandelier", (0, 31, 255), (480,)),
    ("awning", (0, 255, 61), (77,)),
    ("streetlight", (0, 71, 255), (2616,)),
    ("booth", (255, 0, 204), (246, 247)),
    ("television receiver", (0, 255, 194), (2733,)),
    ("airplane", (0, 255, 82), (14,)),
    ("dirt track", (0, 10, 255), (738,)),
    ("apparel", (0, 112, 255), (38,)),
    ("pole", (51, 0, 255), (1936,)),
    ("land", (0, 194, 255), (1401,)),
    ("bannister", (0, 122, 255), (120,)),
    ("escalator", (0, 255, 163), (868,)),
    ("ottoman", (255, 153, 0), (1702,)),
    ("bottle", (0, 255, 10), (249,)),
    ("buffet", (255, 112, 0), (308,)),
    ("poster", (143, 255, 0), (1969,)),
    ("stage", (82, 0, 255), (2526,)),
    ("van", (163, 255, 0), (2928,)),
    ("ship", (255, 235, 0), (2337,)),
    ("fountain", (8, 184, 170), (1023,)),
    ("conveyer belt", (133, 0, 255), (609,)),
    ("canopy", (0, 255, 92), (389,)),
    ("washer", (184, 0, 255), (2989,)),
    ("plaything", (255, 0, 31), (1930,)),
    ("swimming pool", (0, 184, 255), (2668,)),
    ("stool", (0, 214, 255), (2586,)),
    ("barrel", (255, 0, 112), (131,)),
    ("basket", (92, 255, 0), (146,)),
    ("waterfall", (0, 224, 255), (3016,)),
    ("tent", (112, 224, 255), (2739,)),
    ("bag", (70, 184, 160), (95,)),
    ("minibike", (163, 0, 255), (1563,)),
    ("cradle", (153, 0, 255), (642,)),
    ("oven", (71, 255, 0), (1708,)),
    ("ball", (255, 0, 163), (103,)),
    ("food", (255, 204, 0), (1002,)),
    ("step", (255, 0, 143), (2569,)),
    ("tank", (0, 255, 235), (2704,)),
    ("trade name", (133, 255, 0), (2833,)),
    ("microwave", (255, 0, 235), (1551,)),
    ("pot", (245, 0, 255), (1981,)),
    ("animal", (255, 0, 122), (29,)),
    ("bicycle", (255, 245, 0), (187,)),
    ("lake", (10, 190, 212), (1393,)),
    ("dishwasher", (214, 255, 0), (747,)),
    ("screen", (0, 204, 255), (2254,)),
    ("blanket", (20, 0, 255), (206,)),
    ("sculpture", (255, 255, 0), (2262,)),
    ("hood", (0, 153, 255), (1260,)),
    ("sconce", (0, 41, 255), (2243,)),
    ("vase", (0, 255, 204), (2932,)),
    ("traffic light", (41, 0, 255), (2836,)),
    ("tray", (41, 255, 0), (2850,)),
    ("ashcan", (173, 0, 255), (64,)),
    ("fan", (0, 245, 255), (894,)),
    ("pier", (71, 0, 255), (1858,)),
    ("crt screen", (122, 0, 255), (3109,)),
    ("plate", (0, 255, 184), (1919,)),
    ("monitor", (0, 92, 255), (1583,)),
    ("bulletin board", (184, 255, 0), (318,)),
    ("shower", (0, 133, 255), (2356,)),
    ("radiator", (255, 214, 0), (2046,)),
    ("glass", (25, 194, 194), (1098,)),
    ("clock", (102, 255, 0), (530,)),
    ("flag", (92, 0, 255), (954,)),
)
"""(name, RGB colour, numbers of its objects in the full annotation of 2016) by class."""

CLASSES = tuple(name for name, _, _ in LABELS)
PALETTE = tuple(color for _, color, _ in LABELS)
STUFF = frozenset({
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77, 79,
    84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145,
})  # fmt: skip
"""Classes that are no things: all but the 100 of the instance track of the Places Challenge 2017."""

THINGS = tuple(index not in STUFF for index in range(len(CLASSES)))
THING = {kind: place for place, kind in enumerate(kind for kind, is_thing in enumerate(THINGS) if is_thing)}
"""Class -> class among the things."""

_THINGS = TruthClasses(
    names=tuple(CLASSES[kind] for kind in THING),
    palette=tuple(PALETTE[kind] for kind in THING),
    things=(True,) * len(THING),
)
CLASS_OF_CODE = {0: IGNORE} | {code: code - 1 for code in range(1, len(CLASSES) + 1)}
"""Code in a mask of the challenge tree -> class."""

FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
"""Split -> folder."""

OBJECTS = 256 * 26
"""Object numbers that a colour can hold: R // 10 is 0..25, G is 0..255."""

_ARCHIVES = ("ADEChallengeData2016", "ADE20K_2016_07_26")
_CODE_RULE = LabelRule(num_classes=len(CLASSES), label_map=CLASS_OF_CODE)
_FULL_ENDING = "_seg"
_OBJECT_MAP = "mapFromADE.txt"
_INDEX_OF_2021 = "index_ade20k.pkl"


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectCodeRule(LabelRule):
    """How colours that name objects become labels. class_of_object: (OBJECTS,) uint8, 0..149 or 255."""

    class_of_object: np.ndarray

    def decode(self, data: bytes, path: str | Path) -> np.ndarray:
        """Return the label (H, W) uint8, 0..149 or 255, of a mask file's bytes."""
        colors = decode_raw(data, path, as_colors=True)
        labels: np.ndarray = self.class_of_object[colors[..., 0].astype(np.int64) // 10 * 256 + colors[..., 1]]
        return labels

    @cached_property
    def text(self) -> str:
        """A text that differs where the rule does."""
        return f"ADE20K objects {zlib.crc32(self.class_of_object.tobytes())}"


class ADE20K(PairedFiles):
    """One split of ADE20K with its 150 classes, from either layout (see the head of this file)."""

    name = "ade20k"
    targets = ("SemanticTarget", INSTANCES, SEGMENTS)
    layout = "images/{training,validation}/ and annotations/{training,validation}/, or STEM_seg.png beside STEM.jpg"
    classes = CLASSES
    palette = PALETTE
    things = THINGS

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder, or an archive's folder in it, holds one of the two layouts."""
        return find_home(root) is not None

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits from the layout that is there; in test a mask may be missing."""
        home = find_home(root) or root
        if not (home / "annotations").is_dir():
            return _list_full(cls.name, root, home, splits)
        folders = {split: _challenge_folders(home, split) for split in splits if split in FOLDERS}
        folders = {split: pair for split, pair in folders.items() if pair[0].is_dir()}
        parts = {split: match_folders(*pair, split) for split, pair in folders.items()}
        listed = Annotations(names=CLASSES, ids={index: index for index in range(len(CLASSES))}, object_classes=THING)
        things = Annotations(names=_THINGS.names, ids=THING)
        for split, part in parts.items():
            parts[split] = _with_truths(part, home, split, listed, things)
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            encoding=LabelEncoding(classes=CLASSES, palette=PALETTE, label_map=CLASS_OF_CODE, ignore=()),
            folders=folders,
            faults=(*listed.faults, *things.faults),
            truths=_truths(listed, things),
            class_tables={INSTANCES: _THINGS},
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected; DataError where there is no such split."""
        if split not in FOLDERS:
            raise DataError(f"has no split {split!r}; its splits are {', '.join(FOLDERS)}", find_home(root) or root)
        return f"images/{FOLDERS[split]}/"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of colours that name objects, or of class codes, as the layout has them."""
        return self.listed.encoding.rule or _CODE_RULE


@dataclass(frozen=True, kw_only=True)
class TrackRule:
    """Maps of objects of the instance track."""

    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the objects of an item, by class and number."""
        path = item.truths[self.name]
        return _objects_of(decoder.file(path, "objects of the track", lambda data: _track_numbers(data, path)), path)

    def size(self, item: Item) -> tuple[int, int]:
        """Return the size that the header says."""
        shape = read_shape(item.truths[self.name])
        return shape.height, shape.width

    def look(self, item: Item) -> TruthLook:
        """Return what the file shows."""
        path = item.truths[self.name]
        numbers = _track_numbers(read_bytes(path), path)
        size = (numbers.shape[0], numbers.shape[1])
        try:
            target = _objects_of(numbers, path)
        except DataError as error:
            return TruthLook(size=size, misfit=str(error).removeprefix(f"{path}: "))
        return TruthLook(size=size, objects=dict(Counter(np.asarray(target.classes).tolist())))


def _track_numbers(data: bytes, path: Path) -> np.ndarray:
    """Return class * 256 + number (H, W) uint16 of a map of the instance track."""
    colors = decode_raw(data, path)
    if colors.ndim != 3:
        raise DataError("is no map of the instance track: expected colours, R = class 1..100, G = number", path)
    numbers: np.ndarray = colors[..., 0].astype(np.uint16) << 8 | colors[..., 1]
    return numbers


def _objects_of(numbers: np.ndarray, path: Path) -> InstancesTarget:
    values = np.unique(numbers)
    values = values[values >= 256]
    kinds = (values >> 8).astype(np.int64) - 1
    if kinds.size and kinds.max() >= len(THING):
        raise DataError(f"holds class {kinds.max() + 1}, expected 1..{len(THING)}", path)
    return InstancesTarget(numbers == values[:, None, None], kinds, np.zeros(len(values), bool))


def _with_truths(part: Part, home: Path, split: str, listed: Annotations, things: Annotations) -> Part:
    """Return a split with its files of objects and of segments, of whatever kind is there."""
    folder = home / "annotations_instance" / FOLDERS[split]
    objects, maps = (home / f"ade20k_{kind}_{split}.json" for kind in ("instance", "panoptic"))
    if folder.is_dir():
        images = home / "images" / FOLDERS[split]
        part = with_companions(part, INSTANCES, "maps of objects", "map of objects", images, folder, is_input=False)
    elif objects.is_file():
        part = things.add_objects(part, objects)
    if maps.is_file():
        return listed.with_things(listed.add_maps(part, maps, maps.with_suffix(""), as_masks=False))
    items = [
        replace(item, truths={**item.truths, SEGMENTS: item.truths[INSTANCES]}) if INSTANCES in item.truths else item
        for item in part.items
    ]
    return replace(part, items=tuple(items))


def _truths(listed: Annotations, things: Annotations) -> dict[str, TruthRule]:
    """Return how objects and segments are read: from files of COCO's form, else from maps and masks."""
    tracked: TruthRule = TrackRule()
    if things.objects:
        tracked = EitherRule(first=things.truths()[INSTANCES], second=tracked, images=frozenset(things.objects))
    painted: TruthRule = Painted(
        objects=tracked, labels=MaskLabels(rule=_CODE_RULE), things=THINGS, classes={b: a for a, b in THING.items()}
    )
    if listed.maps:
        painted = EitherRule(first=listed.truths()[SEGMENTS], second=painted, images=frozenset(listed.maps))
    return {INSTANCES: tracked, SEGMENTS: painted}


def find_home(root: Path) -> Path | None:
    """Return the folder that holds one of the two layouts: root itself or an archive's folder in it."""
    for home in (root, *(root / name for name in _ARCHIVES)):
        images = [home / "images" / folder for folder in FOLDERS.values()]
        if not any(folder.is_dir() for folder in images):
            continue
        if any((home / "annotations" / folder).is_dir() for folder in FOLDERS.values()):
            return home
        if any(next(folder.rglob(f"ADE_*{_FULL_ENDING}.png"), None) for folder in images if folder.is_dir()):
            return home
    return None


def _challenge_folders(home: Path, split: str) -> tuple[Path, Path]:
    return home / "images" / FOLDERS[split], home / "annotations" / FOLDERS[split]


def _list_full(name: str, root: Path, home: Path, splits: Sequence[str]) -> FileListing:
    """List the full annotation: STEM.jpg with STEM_seg.png beside it; parts of objects are further PNG files."""
    fault, labels = None, LABELS
    try:
        labels = _read_object_map(home) or LABELS
    except DataError as error:
        fault = error
    parts = {}
    for split in splits:
        folder = home / "images" / FOLDERS.get(split, split)
        if split in FOLDERS and folder.is_dir():
            part = _match_full(folder, split)
            parts[split] = part if fault is None else replace(part, error=fault)
    repair = f"put the release's own {_OBJECT_MAP} there: lines 'class object'"
    return FileListing(
        root=root,
        name=name,
        parts=parts,
        encoding=LabelEncoding(classes=CLASSES, palette=PALETTE, rule=_object_rule(labels)),
        folders={split: (home / "images" / FOLDERS[split],) * 2 for split in parts},
        faults=() if fault is None else (fault_of_list(fault, repair, kind="classes_file", root=root),),
    )


def _match_full(folder: Path, split: str) -> Part:
    files = list_images(folder)
    images = {key: [path for path in paths if path.suffix.lower() != ".png"] for key, paths in files.items()}
    masks = {key.removesuffix(_FULL_ENDING): paths for key, paths in files.items() if key.endswith(_FULL_ENDING)}
    return match_stems(
        {key: paths for key, paths in images.items() if paths},
        masks,
        needs_mask=split != "test",
        expected=lambda key: f"{key}{_FULL_ENDING}.png",
    )


def _object_rule(labels: Labels) -> ObjectCodeRule:
    table = np.full(OBJECTS, IGNORE, np.uint8)
    for index, (_, _, objects) in enumerate(labels):
        table[list(objects)] = index
    return ObjectCodeRule(num_classes=len(CLASSES), class_of_object=table)


def _read_object_map(home: Path) -> Labels | None:
    """Return `LABELS` with the object numbers of the dataset's own list, or None where it has none.

    Raises:
        DataError: the list does not hold two numbers a line, or it is missing where the built-in one does not apply.
    """
    path = home / _OBJECT_MAP
    if not path.is_file():
        if (home / _INDEX_OF_2021).is_file():
            raise DataError(
                f"the release of 2021 needs {_OBJECT_MAP} beside {_INDEX_OF_2021}: lines 'class object'", home
            )
        return None
    objects: list[list[int]] = [[] for _ in LABELS]
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isdigit() for word in words) or not 1 <= int(words[0]) <= len(LABELS):
            raise DataError(f"line {number}: {line.strip()!r}; expected a class 1..{len(LABELS)} and an object", path)
        if int(words[1]) >= OBJECTS:
            raise DataError(f"line {number}: object {words[1]}; expected 0..{OBJECTS - 1}", path)
        objects[int(words[0]) - 1].append(int(words[1]))
    return [(name, color, tuple(found)) for (name, color, _), found in zip(LABELS, objects, strict=True)]
