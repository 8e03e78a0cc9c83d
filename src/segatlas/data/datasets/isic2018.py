"""ISIC 2018, task 1: skin lesions in dermoscopic images.

| fact     | value                                                                                                  |
|----------|--------------------------------------------------------------------------------------------------------|
| paper    | Codella et al., "Skin Lesion Analysis Toward Melanoma Detection 2018", 2019                            |
| classes  | 2: background, lesion                                                                                  |
| things   | not told                                                                                               |
| codes    | `ISIC_N_segmentation.png`: 0 background, 255 lesion; every pixel is labelled                           |
| images   | JPEG of about 600 x 450 to 6700 x 4500                                                                 |
| splits   | train 2,594, val 100, test 1,000                                                                       |
| source   | challenge.isic-archive.com/data                                                                        |
| terms    | CC BY-NC 4.0 (train: also CC0 in parts)                                                                |

Layout: `ISIC2018_Task1-2_Training_Input/ISIC_N.jpg` and `ISIC2018_Task1_Training_GroundTruth/ISIC_N_segmentation.png`,
likewise `Validation` and `Test`. Without the folders of validation a part of train is held out (`data.val_fraction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.folder import hold_out
from segatlas.data.datasets.listing import SPLITS, FileListing, Item, LabelEncoding, match_stems
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule

CLASSES = ("background", "lesion")
CLASS_OF_CODE = {0: 0, 255: 1}
ENDING = "_segmentation"
FOLDERS = {"train": "Training", "val": "Validation", "test": "Test"}
_RULE = LabelRule(num_classes=len(CLASSES), label_map=CLASS_OF_CODE, ignore=())


class Isic2018Options(Section):
    """What is held out."""

    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="fraction of train held out as val where the folders of validation are not there"
    )


class Isic2018(PairedFiles):
    """One split of ISIC 2018, task 1."""

    name = "isic2018"
    layout = "ISIC2018_Task1-2_Training_Input/ and ISIC2018_Task1_Training_GroundTruth/, likewise Validation and Test"
    classes = CLASSES
    palette = ((0, 0, 0), (230, 90, 120))
    options = Isic2018Options

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has the two folders of a split."""
        return any(all(folder.is_dir() for folder in _folders(root, split)) for split in SPLITS)

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits whose images are there, whichever are asked for; in test a mask may be missing."""
        folders = {split: _folders(root, split) for split in SPLITS}
        folders = {split: pair for split, pair in folders.items() if pair[0].is_dir()}
        parts = {}
        for split, (images, masks) in folders.items():
            found = list_images(masks)
            parts[split] = match_stems(
                list_images(images),
                {key.removesuffix(ENDING): paths for key, paths in found.items() if key.endswith(ENDING)},
                needs_mask=split != "test",
                expected=lambda key, masks=masks: masks / f"{key}{ENDING}.png",  # type: ignore[misc]
            )
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            encoding=LabelEncoding(classes=CLASSES, palette=cls.palette, label_map=CLASS_OF_CODE, ignore=()),
            folders=folders,
            holds_out_val=True,
        )

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split; val is held out of train where it has no folders."""
        wanted = self.split
        holds_out = wanted in ("train", "val") and not _folders(root, "val")[0].is_dir()
        self.split = "train" if holds_out else wanted
        try:
            items = super().open(cfg, root, seed)
        finally:
            self.split = wanted
        if not holds_out or len(items) < 2:
            return items
        held = hold_out([item.key for item in items], cfg.options(Isic2018Options).val_fraction, seed)
        return tuple(item for item in items if (item.key in held) == (wanted == "val"))

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"{_folders(root, split)[0].name}/" if split in FOLDERS else cls.layout

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule: 255 is the lesion."""
        return _RULE


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    word = FOLDERS.get(split, split)
    return root / f"ISIC2018_Task1-2_{word}_Input", root / f"ISIC2018_Task1_{word}_GroundTruth"
