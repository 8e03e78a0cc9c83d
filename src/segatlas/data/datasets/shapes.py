"""The generated dataset `shapes`, see `segatlas.data.shapes` for what it shows and how it lies on disk.

| fact     | value                                                                                             |
|----------|---------------------------------------------------------------------------------------------------|
| classes  | 7: ground, disc, square, triangle, ring, bar, cross (as `classes.json` in the root says)          |
| codes    | class index; every pixel is labelled                                                              |
| images   | 128 x 160 PNG by default                                                                          |
| splits   | train 64, val 16, test 16 by default                                                              |
| source   | made here; a missing root is made on first use, `segatlas data make-shapes` makes others          |
| terms    | none                                                                                              |
"""

from __future__ import annotations

from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.folder import find_pairs
from segatlas.data.datasets.paired import SPLITS, Pair, PairedFiles, empty_split, refuse_other_facts
from segatlas.data.formats.classes import read_classes
from segatlas.data.formats.masks import LabelRule
from segatlas.data.shapes import META_FILE, make_shapes
from segatlas.errors import DataError

DEFAULT_ROOT = "data/shapes"


class Shapes(PairedFiles):
    """One split of `shapes`. Where the root is missing or empty, the dataset is made there first."""

    name = "shapes"
    layout = f"{META_FILE}, classes.json, train/images/ and train/masks/, as `segatlas data make-shapes` writes them"

    @classmethod
    def prepare(cls, cfg: DataConfig) -> Path:
        """Return the root, made if it is missing or empty."""
        root = Path(cfg.root or DEFAULT_ROOT).expanduser()
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            try:
                make_shapes(root)
            except DataError:
                # Another process may have made it meanwhile.
                if not cls.fits(root):
                    raise
        return root

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder was written by `make_shapes`."""
        return (root / META_FILE).is_file()

    def find(self, cfg: DataConfig, root: Path, seed: int) -> tuple[Pair, ...]:
        """Return the pairs of the split; classes and colours come from `classes.json`."""
        table = read_classes(root)
        if table is None or table.colors is None:
            raise DataError("has no classes.json with colours", root)
        refuse_other_facts(cfg, self.name, table.names, table.colors)
        self.classes, self.palette = table.names, table.colors
        self._rule = LabelRule(num_classes=len(self.classes))
        pairs = find_pairs(root, self.split).matched
        if not pairs:
            found = [name for name in SPLITS if find_pairs(root, name).matched]
            raise empty_split(self.split, root, f"{self.split}/images/", found)
        return pairs

    def label_rule(self, path: Path) -> LabelRule:
        """Return the rule: a code is a class."""
        return self._rule
