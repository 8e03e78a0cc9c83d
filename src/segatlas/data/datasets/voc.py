"""PASCAL VOC 2012, segmentation: photographs from the web, 20 kinds of objects and background.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015           |
| classes  | 21, background is class 0                                                                             |
| codes    | palette PNG, index = class, 255 = border and difficult objects (ignore)                         |
| images   | JPEG, longest side 500                                                                                |
| splits   | train 1464, val 1449, trainval 2913 (test labels are not public)                                      |
| source   | host.robots.ox.ac.uk/pascal/VOC/voc2012, VOCtrainval                                                  |
| terms    | Flickr's terms of use, research                                                                       |

Layout, at the root, in `VOC2012/` or in `VOCdevkit/VOC2012/`: `JPEGImages/STEM.jpg`, `SegmentationClass/STEM.png`,
`ImageSets/Segmentation/{split}.txt` with one stem a line. Any list there may be used as a split.
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.foreign import LABELMAP_FILE, read_labelmap
from segatlas.data.datasets.paired import SPLITS, Pair, PairedFiles, empty_split, refuse_other_facts
from segatlas.data.formats.guards import open_image
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule
from segatlas.data.formats.palettes import voc_palette
from segatlas.errors import DataError
from segatlas.files import read_text

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
PALETTE = voc_palette(len(CLASSES))
_RULE = LabelRule(num_classes=len(CLASSES))


class Voc(PairedFiles):
    """One list of PASCAL VOC 2012 with its 21 classes."""

    name = "voc"
    layout = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ (at the root or in VOCdevkit/VOC2012/)"
    classes = CLASSES
    palette = PALETTE

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder, or VOCdevkit/VOC2012 in it, has VOC's three folders."""
        return _home(root) is not None

    def find(self, cfg: DataConfig, root: Path, seed: int) -> list[Pair]:
        """Return the pairs that the split's list names; in test a mask may be missing."""
        refuse_other_facts(cfg, self.name, CLASSES, PALETTE)
        home = _home(root)
        if home is None:
            raise DataError(f"is not laid out as PASCAL VOC; expected {self.layout}", root)
        return _find_pairs(home, self.split)

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule: an index is a class, 255 is ignore."""
        return _RULE


def _home(root: Path) -> Path | None:
    for home in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (home / "JPEGImages").is_dir() and (home / "ImageSets" / "Segmentation").is_dir():
            return None if _is_export(home) else home
    return None


def _is_export(home: Path) -> bool:
    """Whether a tool wrote a set of its own in VOC's folders: it then says so in a `labelmap.txt`.

    VOC beside such a file has VOC's classes, its lists, and masks of indices; tools export colours.
    """
    names = {name for name, _ in read_labelmap(home / LABELMAP_FILE)}
    lists = home / "ImageSets" / "Segmentation"
    has_lists = any((lists / f"{split}.txt").is_file() for split in SPLITS)
    return bool(names) and not (names <= set(CLASSES) and has_lists and not _has_colors(home / "SegmentationClass"))


def _has_colors(folder: Path) -> bool:
    """Whether the first mask is stored as colours. One that cannot be read is told when it is loaded."""
    files = next(iter(list_images(folder).values()), ()) if folder.is_dir() else ()
    for path in files[:1]:
        with suppress(DataError), open_image(path, path) as image:
            return image.mode in ("RGB", "RGBA")
    return False


def _find_pairs(home: Path, split: str) -> list[Pair]:
    path = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        lists = sorted(entry.stem for entry in path.parent.glob("*.txt"))
        close = difflib.get_close_matches(split, lists, n=1)
        hint = f", nearest {close[0]}" if close else ""
        raise DataError(f"no list for split {split!r}; lists there: {', '.join(lists) or 'none'}{hint}", path)
    stems = read_text(path).split()
    if not stems:
        raise empty_split(split, home, str(path), [])
    folder = home / "SegmentationClass"
    images, masks = list_images(home / "JPEGImages"), list_images(folder) if folder.is_dir() else {}
    pairs = []
    for stem in stems:
        if stem not in images:
            raise DataError(f"no such image, listed in {path}", home / "JPEGImages" / f"{stem}.jpg")
        if stem not in masks and split != "test":
            raise DataError(f"no such mask; its image {images[stem][0]} is listed in {path}", folder / f"{stem}.png")
        pairs.append(Pair(key=stem, image=images[stem][0], mask=masks[stem][0] if stem in masks else None))
    return pairs
