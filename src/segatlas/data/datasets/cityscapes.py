"""Cityscapes: street scenes from 50 cities, fine annotations.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016             |
| classes  | 19 evaluated (train ids) of 34 labelled (label ids) and the licence plate (-1)                        |
| codes    | `*_labelIds.png`: 0..33, 255 = -1; `*_labelTrainIds.png`: 0..18, 255; not evaluated becomes 255       |
| images   | 2048 x 1024 PNG                                                                                       |
| splits   | train 2975, val 500, test 1525 (the labels of test are not public: all ignore)                          |
| source   | www.cityscapes-dataset.com, packages leftImg8bit and gtFine                                           |
| terms    | research, teaching and publications only, no redistribution                                           |

Layout: `leftImg8bit/{split}/{city}/NAME_leftImg8bit.png` and `gtFine/{split}/{city}/NAME_gtFine_labelIds.png`. Where
there is no `_labelIds` file, `_labelTrainIds` is read. For the test server, `to_label_ids` turns a prediction back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.paired import SPLITS, Pair, PairedFiles, empty_split, refuse_other_facts
from segatlas.data.formats.listing import is_hidden
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
TRAIN_ID_OF_LABEL_ID = {label_id: train_id for label_id, (_, train_id, _) in enumerate(LABELS)} | {255: IGNORE}
LABEL_ID_OF_TRAIN_ID = {train_id: label_id for label_id, _, train_id, _ in _EVALUATED}

_LABEL_ID_RULE = LabelRule(num_classes=len(CLASSES), label_map=TRAIN_ID_OF_LABEL_ID)
_TRAIN_ID_RULE = LabelRule(num_classes=len(CLASSES))
_IMAGE_ENDING = "_leftImg8bit.png"


class Cityscapes(PairedFiles):
    """One split of Cityscapes with its 19 evaluated classes."""

    name = "cityscapes"
    layout = "leftImg8bit/{train,val}/CITY/ and gtFine/{train,val}/CITY/"
    classes = CLASSES
    palette = PALETTE

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has Cityscapes' two trees."""
        return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()

    def find(self, cfg: DataConfig, root: Path, seed: int) -> list[Pair]:
        """Return the pairs of the split; in test a mask may be missing."""
        refuse_other_facts(cfg, self.name, CLASSES, PALETTE)
        pairs = _find_pairs(root, self.split)
        if not pairs:
            found = [name for name in SPLITS if any(_images(root, name))]
            raise empty_split(self.split, root, f"leftImg8bit/{self.split}/CITY/*{_IMAGE_ENDING}", found)
        return pairs

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


def _find_pairs(root: Path, split: str) -> list[Pair]:
    pairs = []
    for image in _images(root, split):
        key = f"{image.parent.name}/{image.name.removesuffix(_IMAGE_ENDING)}"
        stem = root / "gtFine" / split / f"{key}_gtFine"
        candidates = (Path(f"{stem}_labelIds.png"), Path(f"{stem}_labelTrainIds.png"))
        mask = next((path for path in candidates if path.is_file()), None)
        if mask is None and split != "test":
            raise DataError(f"has no mask {candidates[0]}", image)
        pairs.append(Pair(key=key, image=image, mask=mask))
    return pairs


def _images(root: Path, split: str) -> list[Path]:
    found = (root / "leftImg8bit" / split).glob(f"*/*{_IMAGE_ENDING}")
    return sorted(path for path in found if not (is_hidden(path.name) or is_hidden(path.parent.name)))
