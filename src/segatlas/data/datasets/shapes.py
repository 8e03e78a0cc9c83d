"""The generated dataset `shapes`, see `segatlas.data.shapes` for what it shows and how it lies on disk.

| fact     | value                                                                                             |
|----------|---------------------------------------------------------------------------------------------------|
| classes  | 7: ground, disc, square, triangle, ring, bar, cross (as `classes.json` in the root says)          |
| things   | all but ground                                                                                    |
| codes    | class index; every pixel is labelled                                                              |
| images   | 128 x 160 PNG by default                                                                          |
| splits   | train 64, val 16, test 16 by default                                                              |
| source   | made here; a missing root is made on first use, `segatlas data make-shapes` makes others          |
| terms    | none                                                                                              |
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.annotations import Annotations
from segatlas.data.datasets.folder import find_part, sibling_folder, split_folders
from segatlas.data.datasets.listing import SPLITS, FileListing, Item, LabelEncoding, fault_of_list, with_companions
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS, MapOfObjects
from segatlas.data.formats.classes import read_classes
from segatlas.data.formats.instances import InstanceRule
from segatlas.data.formats.masks import LabelRule
from segatlas.data.shapes import META_FILE, make_shapes
from segatlas.errors import DataError

logger = logging.getLogger(__name__)

DEFAULT_ROOT = "data/shapes"

MAPS = "instances"
"""The folder of the maps of objects, beside `masks`."""


class Shapes(PairedFiles):
    """One split of `shapes`. Where the root is missing or empty, the dataset is made there first."""

    name = "shapes"
    targets = ("SemanticTarget", INSTANCES, SEGMENTS)
    layout = f"{META_FILE}, classes.json, train/images/ and train/masks/, as `segatlas data make-shapes` writes them"

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the root, made if it is missing or empty."""
        root = Path(cfg.root or DEFAULT_ROOT).expanduser()
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            try:
                make_shapes(root)
                logger.warning("%s was missing or empty: the generated dataset shapes was made there", root)
            except DataError:
                # Another process may have made it meanwhile.
                if not cls.fits(root):
                    raise
        return root

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder was written by `make_shapes`."""
        return (root / META_FILE).is_file()

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List the splits; classes and colours come from `classes.json`."""
        table, error = None, None
        try:
            table = read_classes(root)
        except DataError as problem:
            error = problem
        if error is None and (table is None or table.colors is None):
            error = DataError("has no classes.json with colours", root)
        folders = {split: found for split in splits if (found := split_folders(root, split)) is not None}
        parts = {}
        names = () if table is None else table.names
        listed = Annotations(names=names)
        for split, (images, _) in folders.items():
            maps = sibling_folder(images, root, MAPS)
            part = with_companions(
                find_part(root, split), INSTANCES, MAPS, "map of objects", images, maps, is_input=False
            )
            file = root / "annotations" / f"panoptic_{split}.json"
            if table is not None and file.is_file():
                part = listed.add_maps(part, file, root / split / "panoptic", as_masks=False)
            parts[split] = part
        repair = "make the dataset anew: segatlas data make-shapes NEW_FOLDER"
        return FileListing(
            root=root,
            name=cls.name,
            parts=parts if error is None else {split: replace(part, error=error) for split, part in parts.items()},
            encoding=LabelEncoding(
                classes=None if table is None else table.names, palette=None if table is None else table.colors
            ),
            faults=tuple(listed.faults) if error is None else (fault_of_list(error, repair, kind="classes_file"),),
            folders=folders,
            truths={**listed.truths(), INSTANCES: MapOfObjects(rule=InstanceRule(num_classes=len(names)))}
            if names
            else {},
        )

    @classmethod
    def expected(cls, root: Path, split: str) -> str:
        """Return where the images of a split are expected."""
        return f"{split}/images/"

    def open(self, cfg: DataConfig, root: Path, seed: int) -> Sequence[Item]:
        """Return the items of the split; classes and colours come from `classes.json`."""
        items = super().open(cfg, root, seed)
        encoding = self.listed.encoding
        self.classes, self.palette = (
            encoding.classes or (),
            encoding.palette or (),
        )  # the listing has an error otherwise
        self.things = tuple(index > 0 for index in range(len(self.classes)))
        self._rule = LabelRule(num_classes=len(self.classes))
        return items

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule: a code is a class."""
        return self._rule
