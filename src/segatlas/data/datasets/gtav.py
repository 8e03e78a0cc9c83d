"""GTAV, "Playing for Data": street scenes of a game with the labels of Cityscapes.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| paper    | Richter et al., "Playing for Data: Ground Truth from Computer Games", ECCV 2016                       |
| classes  | 35: the label ids 0..33 of Cityscapes and the licence plate, 34; or its 19 evaluated classes          |
| things   | not told: the authors label pixels and count no objects                                               |
| codes    | palette PNG, index = label id; or their colours as RGB (see below)                                    |
| images   | 1914 x 1052 PNG, 24,966 of them; in two of the set as published the mask has another size             |
| splits   | by lists: train.txt, val.txt, test.txt, one stem a line (those of SANet: 12,402, 6,347, 6,155)        |
| source   | download.visinf.tu-darmstadt.de/data/from_games                                                       |
| terms    | research and education, not commercial                                                                |

Layout: `images/STEM.png`, `labels/STEM.png`, and a list a split at the root. The authors divide the set in a file of
MATLAB, `split.mat`; its three lists of numbers are to be written as text.

Palette and grey masks hold label ids as they are. Some ids have the same colour, and the first of them is taken: 0 of
the four that are black, pole and not the group of poles, car and not the licence plate.

The sizes of image and mask are compared by their headers when the files are listed. Pairs that differ are left out, and
`data check` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets import cityscapes
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    TruthClasses,
    fault_of_list,
    joined_parts,
    listed_but_missing,
    match_stems,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.guards import open_image
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError
from segatlas.files import read_text

LABELS = (*((name, color) for name, _, color in cityscapes.LABELS), ("license plate", (0, 0, 142)))
"""(name, RGB colour) by label id 0..34."""

CLASSES = tuple(name for name, _ in LABELS)
PALETTE = tuple(color for _, color in LABELS)
COLORS = {(20, 20, 20): 4} | {color: label_id for label_id, (_, color) in reversed(list(enumerate(LABELS)))}
"""RGB colour -> label id, the first of those that have it; static things have a grey of their own in the masks."""

_EVALUATED = TruthClasses(names=cityscapes.CLASSES, palette=cityscapes.PALETTE, things=cityscapes.THINGS)
_CLASS_OF_ID = {label_id: cityscapes.TRAIN_ID_OF_LABEL_ID.get(label_id, IGNORE) for label_id in range(len(LABELS))}
_IDS = LabelEncoding(classes=CLASSES, palette=PALETTE)
_ID_COLORS = replace(_IDS, colors=COLORS)
_CLASS_IDS = LabelEncoding(classes=cityscapes.CLASSES, palette=cityscapes.PALETTE, label_map=_CLASS_OF_ID)
_CLASS_COLORS = LabelEncoding(
    classes=cityscapes.CLASSES,
    palette=cityscapes.PALETTE,
    colors={color: _CLASS_OF_ID[label_id] for color, label_id in COLORS.items()},
)


class GtavOptions(Section):
    """Which classes GTAV has, and what it is trained on."""

    grouping: Literal["all", "cityscapes"] = Field(
        "all", description="all: 35 label ids; cityscapes: its 19 evaluated classes, all others ignored"
    )
    trainval: bool = Field(False, description="train holds val too, and val is test: as published for SANet")


class Gtav(PairedFiles):
    """One list of GTAV with its 35 label ids, or with the 19 classes of Cityscapes."""

    name = "gtav"
    layout = "images/, labels/ and train.txt, val.txt, test.txt"
    classes = CLASSES
    palette = PALETTE
    options = GtavOptions

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has GTAV's two folders and a list."""
        return all((root / folder).is_dir() for folder in ("images", "labels")) and any(
            (root / f"{split}.txt").is_file() for split in SPLITS
        )

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the images that the lists of the splits name, but those whose mask has another size."""
        options = cfg.options(GtavOptions)
        wanted: dict[str, tuple[str, ...]] = {split: (split,) for split in SPLITS}
        if options.trainval:
            wanted = {"train": ("train", "val"), "val": ("test",), "test": ("test",)}
        parts: dict[str, Part] = {}
        faults: list[Fault] = []
        for split in dict.fromkeys(name for one in splits for name in wanted.get(one, ())):
            if (root / f"{split}.txt").is_file():
                parts[split], found = _part(root, split)
                faults += found
        parts = {name: joined_parts([parts[one] for one in wanted[name] if one in parts])
                 for name in splits if name in wanted}  # fmt: skip
        parts = {name: part for name, part in parts.items() if part != Part()}
        is_colored = _has_colors([item for part in parts.values() for item in part.items])
        if options.grouping == "all":
            encoding, tables = _ID_COLORS if is_colored else _IDS, {}
        else:
            encoding, tables = _CLASS_COLORS if is_colored else _CLASS_IDS, {"SemanticTarget": _EVALUATED}
        return FileListing(
            root=root, name=cls.name, parts=parts, encoding=encoding, faults=tuple(faults), class_tables=tables
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"images/, as {split}.txt lists them"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of colour masks or of masks of indices, as the first of the split is."""
        encoding = self.listed.encoding
        assert encoding.classes is not None
        return LabelRule(num_classes=len(encoding.classes), label_map=encoding.label_map, colors=encoding.colors)


def _part(root: Path, split: str) -> tuple[Part, list[Fault]]:
    """Return the files of a split as its list names them, and what is wrong with list and sizes."""
    listed_in = root / f"{split}.txt"
    try:
        lines = read_text(listed_in).splitlines()
    except DataError as error:
        return Part(error=error), [fault_of_list(error, "write it as plain text in UTF-8")]
    stems = [Path(line.split()[0]).stem for line in lines if line.strip()]
    images, masks = list_images(root / "images"), list_images(root / "labels")
    lost = [root / "images" / f"{stem}.png" for stem in stems if stem not in images]
    part = match_stems(
        {stem: images[stem] for stem in stems if stem in images},
        {stem: masks[stem] for stem in stems if stem in masks and stem in images},
        needs_mask=split != "test",
        expected=lambda key: root / "labels" / f"{key}.png",
    )
    broken = [item for item in part.items if _sizes_differ(item)]
    faults = [_left_out(item) for item in broken]
    part = replace(part, items=tuple(item for item in part.items if item not in broken))
    if lost:
        missing = DataError(f"no such image, listed in {listed_in}", lost[0])
        return replace(part, error=part.error or missing), [listed_but_missing(lost, listed_in), *faults]
    return part, faults


def _sizes_differ(item: Item) -> bool:
    """Whether image and mask have other sizes; of files that cannot be read loading tells it."""
    if item.target is None:
        return False
    with suppress(DataError):
        image, mask = read_shape(item.image), read_shape(item.target)
        return (image.height, image.width) != (mask.height, mask.width)
    return False


def _left_out(item: Item) -> Fault:
    assert item.target is not None
    image, mask = read_shape(item.image), read_shape(item.target)
    fault = f"left out: its mask is {mask.width} x {mask.height} pixels, the image {image.width} x {image.height}"
    return Fault(
        kind="left_out",
        severity="warning",
        files=(item.image,),
        fault=fault,
        repair="nothing to do: two images are published so; take them from the lists",
    )


def _has_colors(items: Sequence[Item]) -> bool:
    """Whether the first mask is stored as colours. One that cannot be read is told when it is loaded."""
    path = next((item.target for item in items if item.target is not None), None)
    if path is not None:
        with suppress(DataError), open_image(path, path) as image:
            return image.mode in ("RGB", "RGBA")
    return False
