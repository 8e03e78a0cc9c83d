"""One file a dataset. `DATASETS` is the table from a name in a recipe to the class that reads it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segatlas.data.datasets.paired import PairedFiles

DATASETS = {
    "shapes": "segatlas.data.datasets.shapes:Shapes",
    "cityscapes": "segatlas.data.datasets.cityscapes:Cityscapes",
    "ade20k": "segatlas.data.datasets.ade20k:ADE20K",
    "coco": "segatlas.data.datasets.coco:Coco",
    "pennfudan": "segatlas.data.datasets.pennfudan:PennFudan",
    "voc": "segatlas.data.datasets.voc:Voc",
    "gtav": "segatlas.data.datasets.gtav:Gtav",
    "cub200": "segatlas.data.datasets.cub200:Cub200",
    "isic2018": "segatlas.data.datasets.isic2018:Isic2018",
    "lits": "segatlas.data.datasets.lits:Lits",
    "camvid": "segatlas.data.datasets.camvid:CamVid",
    "pairs": "segatlas.data.datasets.pairs:Pairs",
    "mixed": "segatlas.data.datasets.mixed:Mixed",
    "weak": "segatlas.data.datasets.weak:Weak",
    "folder": "segatlas.data.datasets.folder:FolderData",
}
"""Name in `data.name` -> module:class, the most particular layout first."""


def dataset_class(name: str) -> type[PairedFiles]:
    """Return the class of a dataset in the table."""
    module, _, attribute = DATASETS[name].partition(":")
    kind: type[PairedFiles] = getattr(importlib.import_module(module), attribute)
    if "sources" in kind.options.model_fields:
        kind.find = staticmethod(dataset_class)
    return kind


def describe_layout(root: str | Path) -> str | None:
    """Return the name of the dataset that a folder is laid out as, or None where it is like none."""
    root = Path(root)
    return next((name for name in DATASETS if dataset_class(name).fits(root)), None) if root.is_dir() else None


def dataset_below(root: str | Path) -> Path | None:
    """Return the first folder in a folder that is laid out as a dataset; None where there is none."""
    return next((folder for folder in sorted(Path(root).iterdir()) if describe_layout(folder)), None)
