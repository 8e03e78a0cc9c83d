"""COCO: everyday photographs with objects, and with everything else as stuff; and any set laid out so.

| fact     | value                                                                                                 |
|----------|-------------------------------------------------------------------------------------------------------|
| papers   | Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; Kirillov et al., "Panoptic        |
|          | Segmentation", CVPR 2019                                                                              |
| classes  | as the annotation files list them, by rising number: 80 of objects, 133 of panoptic maps (80 + 53)    |
| things   | as the panoptic file says; all classes of a file of objects                                           |
| codes    | polygons and run-length codes; panoptic PNG, R + 256 G + 65536 B; a class from the table in the file  |
| images   | JPEG, mostly 640 x 480                                                                                |
| splits   | train2017 118,287, val2017 5,000                                                                      |
| source   | cocodataset.org                                                                                       |
| terms    | annotations CC BY 4.0; images under the Flickr terms that their entries name                          |

Layout: `annotations/instances_{split}YEAR.json` with objects, `annotations/panoptic_{split}YEAR.json` and the maps in
`annotations/panoptic_{split}YEAR/`, one of the two or both; images in `{split}YEAR/`, `images/{split}YEAR/` or
`{split}/images/`. Where there are several years, `data.year` says which. Where there is no file of objects, the things
of the maps are the objects. Masks of classes come from the maps; in them a crowd has its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pydantic import Field

from segatlas.config.schema import DataConfig
from segatlas.config.section import Section
from segatlas.data.datasets.annotations import Annotations
from segatlas.data.datasets.listing import (
    SPLITS,
    Fault,
    FileListing,
    Item,
    LabelEncoding,
    Part,
    fault_of_list,
)
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, PanopticLabelsByFile
from segatlas.data.formats.coco import read_coco
from segatlas.data.formats.listing import has_images, list_images
from segatlas.data.formats.masks import LabelRule
from segatlas.errors import DataError

FOLDER = "annotations"
OBJECTS, MAPS = "instances", "panoptic"


class CocoOptions(Section):
    """Which of several annotation files are read."""

    year: str | None = Field(
        None,
        description="what follows the split in the names of files and folders, such as '2017'; default: what is there",
    )


class Coco(PairedFiles):
    """One split of COCO, or of a set in its form."""

    name = "coco"
    layout = f"{FOLDER}/{OBJECTS}_train2017.json or {FOLDER}/{MAPS}_train2017.json and its maps, and train2017/"
    options = CocoOptions
    targets = ("SemanticTarget", INSTANCES, SEGMENTS)

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder has annotation files, and images where they are expected."""
        return any(_image_folder(root, split, year) is not None for split in SPLITS for year in _years(root, split))

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits of which there is an annotation file, as these files list the images."""
        wanted = cfg.options(CocoOptions).year
        found = Annotations()
        parts: dict[str, Part] = {}
        folders: dict[str, tuple[Path, Path]] = {}
        faults: list[Fault] = []
        for split in splits:
            years = [year for year in _years(root, split) if wanted is None or year == wanted]
            if not years:
                continue
            if len(years) > 1:
                error = DataError(
                    f"has annotations of {split} of several years: {', '.join(years)}; say data.year", root
                )
                faults.append(fault_of_list(error, "set data.year", root=root))
                parts[split] = Part(error=error)
                continue
            images = _image_folder(root, split, years[0])
            if images is None:
                error = DataError(f"has no folder {split}{years[0]} of images, nor images/{split}{years[0]}", root)
                faults.append(fault_of_list(error, "put the images there", root=root))
                parts[split] = Part(error=error)
                continue
            folders[split] = (images, root / FOLDER / f"{MAPS}_{split}{years[0]}")
            parts[split] = _part(found, root, split, years[0], images)
            faults += _unlisted(parts[split], images)
        rules = found.truths()
        parts = {split: found.with_things(part) for split, part in parts.items()}
        tables = found.class_tables()
        plain = tables.get(SEGMENTS) or tables.get(INSTANCES)
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts,
            folders=folders,
            encoding=LabelEncoding(
                classes=None if plain is None else plain.names,
                palette=None if plain is None else plain.palette,
                rule=found.label_rules(),
            ),
            faults=(*faults, *found.faults),
            truths=rules,
            class_tables=tables,
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"{split}2017/, as {FOLDER}/{OBJECTS}_{split}2017.json or {MAPS}_{split}2017.json lists them"

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule of a panoptic map."""
        rule = self.listed.encoding.rule
        assert isinstance(rule, PanopticLabelsByFile)  # where there is a mask there are maps
        return rule.rules[path]


def _part(found: Annotations, root: Path, split: str, year: str, images: Path) -> Part:
    """Return the files of a split as its annotation files list them."""
    objects, maps = (root / FOLDER / f"{kind}_{split}{year}.json" for kind in (OBJECTS, MAPS))
    listed: dict[str, Path] = {}
    for file in (objects, maps):
        with suppress(DataError):  # what is wrong with a file is told when it is added
            if file.is_file():
                names = [PurePosixPath(one.file_name) for one in read_coco(file).images]
                listed |= {name.with_suffix("").as_posix(): images / name for name in names if ".." not in name.parts}
    items = [Item(key=key, image=path) for key, path in sorted(listed.items()) if path.is_file()]
    part = Part(items=tuple(items))
    if objects.is_file():
        part = found.add_objects(part, objects)
    if maps.is_file():
        part = found.add_maps(part, maps, root / FOLDER / f"{MAPS}_{split}{year}", as_masks=True)
    return part


def _years(root: Path, split: str) -> list[str]:
    """Return what follows a split's name in the names of its annotation files: "2017", "", ..."""
    found = set()
    for kind in (OBJECTS, MAPS):
        begin = f"{kind}_{split}"
        found |= {path.stem.removeprefix(begin) for path in (root / FOLDER).glob(f"{begin}*.json")}
    return sorted(found)


def _image_folder(root: Path, split: str, year: str) -> Path | None:
    folders = (root / f"{split}{year}", root / "images" / f"{split}{year}", root / split / "images")
    return next((folder for folder in folders if has_images(folder)), None)


def _unlisted(part: Part, images: Path) -> list[Fault]:
    """Name images that no annotation file lists: they are not read."""
    listed = {item.image for item in part.items} | {*part.images_without_mask}
    files = [path for paths in list_images(images).values() for path in paths if path not in listed]
    if not files:
        return []
    fault = "are listed in no annotation file and are not read"
    repair = "list them (an image without objects too), or move them elsewhere"
    return [Fault(kind="not_read", severity="warning", files=tuple(files), fault=fault, repair=repair)]
