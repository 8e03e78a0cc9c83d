"""Penn-Fudan: pedestrians in streets, told apart.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Wang et al., "Object Detection Combining Recognition and Segmentation", ACCV 2007                     |
| classes  | 2: background, pedestrian                                                                             |
| things   | pedestrian                                                                                            |
| codes    | `STEM_mask.png`: the number of the pedestrian, 0 = background; every pixel is labelled                |
| images   | 170 PNG of about 500 x 400                                                                            |
| splits   | one; val is held out of it as in `folder` (`data.val_fraction`)                                       |
| source   | www.cis.upenn.edu/~jshi/ped_html                                                                      |
| terms    | none stated                                                                                           |

Layout: `PNGImages/STEM.png` and `PedMasks/STEM_mask.png`, at the root or in `PennFudanPed/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.folder import hold_out
from segatlas.data.datasets.listing import SPLITS, FileListing, Item, LabelEncoding, match_stems
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, MapOfObjects, MaskLabels, Painted
from segatlas.data.formats.instances import InstanceRule
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule

IMAGES, MASKS, ENDING = "PNGImages", "PedMasks", "_mask"
CLASSES = ("background", "pedestrian")
THINGS = (False, True)
CLASS_OF_CODE = {0: 0} | dict.fromkeys(range(1, 256), 1)
"""Number of a pedestrian -> class."""

_RULE = LabelRule(num_classes=len(CLASSES), label_map=CLASS_OF_CODE, ignore=())
_OBJECTS = InstanceRule(num_classes=len(CLASSES), meaning="single", single=1)


class PennFudanOptions(Section):
    """What is held out."""

    val_fraction: float = Field(0.2, gt=0, lt=1, description="fraction of the images held out as val")


class PennFudan(PairedFiles):
    """One split of Penn-Fudan."""

    name = "pennfudan"
    layout = f"{IMAGES}/ and {MASKS}/, or both in PennFudanPed/"
    options = PennFudanOptions
    targets = ("SemanticTarget", INSTANCES, SEGMENTS)
    classes = CLASSES
    palette = ((0, 0, 0), (220, 20, 60))
    things = THINGS

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder, or PennFudanPed/ in it, has the two folders."""
        home = _home(root)
        return (home / IMAGES).is_dir() and (home / MASKS).is_dir()

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all images as train, whichever split is asked for."""
        images, masks = _home(root) / IMAGES, _home(root) / MASKS
        found = {key.removesuffix(ENDING): paths for key, paths in list_images(masks).items() if key.endswith(ENDING)}
        part = match_stems(list_images(images), found, expected=lambda key: masks / f"{key}{ENDING}.png")
        items = tuple(replace(item, truths=_truths(item)) for item in part.items)
        objects = MapOfObjects(rule=_OBJECTS)
        return FileListing(
            root=root,
            name=cls.name,
            parts={"train": replace(part, items=items)} if images.is_dir() else {},
            encoding=LabelEncoding(classes=CLASSES, palette=cls.palette, label_map=CLASS_OF_CODE, ignore=()),
            folders={"train": (images, masks)},
            truths={
                INSTANCES: objects,
                SEGMENTS: Painted(objects=objects, labels=MaskLabels(rule=_RULE), things=THINGS),
            },
            holds_out_val=True,
        )

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split: val is held out of the only one."""
        wanted, self.split = self.split, "train" if self.split == "val" else self.split
        try:
            items = super().open(cfg, root, seed)
        finally:
            self.split = wanted
        if wanted not in ("train", "val") or len(items) < 2:
            return items
        held = hold_out([item.key for item in items], cfg.options(PennFudanOptions).val_fraction, seed)
        return tuple(item for item in items if (item.key in held) == (wanted == "val"))

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images are expected."""
        return f"{IMAGES}/"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule: every number but 0 is a pedestrian."""
        return _RULE


def _home(root: Path) -> Path:
    return root / "PennFudanPed" if (root / "PennFudanPed").is_dir() else root


def _truths(item: Item) -> dict[str, Path]:
    return {} if item.target is None else {INSTANCES: item.target, SEGMENTS: item.target}
