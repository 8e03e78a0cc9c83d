"""PASCAL VOC 2012, segmentation: photographs from the web, 20 kinds of objects and background.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015           |
| classes  | 21, background is class 0                                                                             |
| things   | all but background (SegmentationObject/ has an object for each)                                       |
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.foreign import LABELMAP_FILE, read_labelmap
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    LabelEncoding,
    Part,
    fault_of_list,
    listed_but_missing,
    match_stems,
)
from segatlas.data.datasets.paired import PairedFiles
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
THINGS = tuple(name != "background" for name in CLASSES)
_RULE = LabelRule(num_classes=len(CLASSES))
Files = Mapping[str, Sequence[Path]]


class Voc(PairedFiles):
    """One list of PASCAL VOC 2012 with its 21 classes."""

    name = "voc"
    layout = "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ (at the root or in VOCdevkit/VOC2012/)"
    classes = CLASSES
    palette = PALETTE
    things = THINGS

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder, or VOCdevkit/VOC2012 in it, has VOC's three folders."""
        return _home(root) is not None

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the images that the lists of the splits name; in test a mask may be missing."""
        home = _home(root) or root
        images, masks = list_images(home / "JPEGImages"), list_images(home / "SegmentationClass")
        parts, faults = {}, []
        for split in splits:
            path = home / "ImageSets" / "Segmentation" / f"{split}.txt"
            if path.is_file():
                parts[split], fault = _match(home, path, images, masks, needs_mask=split != "test")
                faults += [fault] if fault else []
        encoding = LabelEncoding(classes=CLASSES, palette=PALETTE)
        return FileListing(root=root, name=cls.name, parts=parts, encoding=encoding, faults=tuple(faults))

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return the list of a split; DataError where there is no such list."""
        path = (_home(root) or root) / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not path.is_file():
            lists = sorted(entry.stem for entry in path.parent.glob("*.txt"))
            close = difflib.get_close_matches(split, lists, n=1)
            hint = f", nearest {close[0]}" if close else ""
            raise DataError(f"no list for split {split!r}; lists there: {', '.join(lists) or 'none'}{hint}", path)
        return str(path)

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


def _match(home: Path, listed_in: Path, images: Files, masks: Files, *, needs_mask: bool) -> tuple[Part, Fault | None]:
    """Return what a list names, and the fault of the list: it cannot be read, or names images that are not there."""
    try:
        stems = read_text(listed_in).split()
    except DataError as error:
        return Part(error=error), fault_of_list(error, "write it as plain text in UTF-8")
    lost = [home / "JPEGImages" / f"{stem}.jpg" for stem in stems if stem not in images]
    part = match_stems(
        {stem: images[stem] for stem in stems if stem in images},
        {stem: masks[stem] for stem in stems if stem in masks and stem in images},
        needs_mask=needs_mask,
    )
    if lost:
        missing = DataError(f"no such image, listed in {listed_in}", lost[0])
        return replace(part, error=missing), listed_but_missing(lost, listed_in)
    if part.images_without_mask and not part.duplicates:
        image = part.images_without_mask[0]
        text = f"no such mask; its image {image} is listed in {listed_in}"
        return replace(part, error=DataError(text, home / "SegmentationClass" / f"{image.stem}.png")), None
    return part, None
