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

Layout: `leftImg8bit/{split}/{city}/NAME_leftImg8bit.png` and `gtFine/{split}/{city}/NAME_gtFine_labelIds.png`. Where
there is no `_labelIds` file, `_labelTrainIds` is read. For the test server, `to_label_ids` turns a prediction back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.listing import SPLITS, Fault, FileListing, LabelEncoding, Part, match_stems
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.errors import DataError

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


class Cityscapes(PairedFiles):
    """One split of Cityscapes with its 19 evaluated classes."""

    name = "cityscapes"
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
        has_label_ids = any((root / "gtFine").rglob(f"*{_MASK_ENDINGS[0]}.png"))
        return FileListing(
            root=root,
            name=cls.name,
            parts={split: _match(images, masks, split) for split, (images, masks) in folders.items()},
            folders=folders,
            faults=_other_images(folders),
            encoding=LabelEncoding(
                classes=CLASSES, palette=PALETTE, label_map=TRAIN_ID_OF_LABEL_ID if has_label_ids else None
            ),
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
    return match_stems(
        files,
        labels,
        needs_mask=split != "test",
        expected=lambda key: masks / f"{key}{_MASK_ENDINGS[0]}.png",
    )


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
