"""What folders made of a whole dataset share: images are copied, what such a folder cannot hold is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.repair import check_new_folder
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class
from segatlas.data.formats.guards import is_volume_name
from segatlas.data.options import checked
from segatlas.errors import UsageError
from segatlas.structures import SemanticTarget


def check_copy(cfg: DataConfig, out: Path) -> None:
    """Look at a dataset and the folder that is to be made of it.

    Raises:
        UsageError: `out` is not empty, or lies in the dataset itself; a folder of images would lose something.
        DataError: the dataset cannot be listed.
    """
    check_new_folder(out, cfg.root)
    cfg = checked(cfg)
    listing = list_dataset_files(cfg, dataset_class(cfg.name).prepare(cfg))
    items = [item for part in listing.parts.values() for item in part.items]
    if any(is_volume_name(item.image) for item in items):
        raise UsageError(f"data.name={cfg.name}: its samples are slices of volumes; a copy holds images alone")
    if further := sorted({name for item in items for name in item.sources}):
        raise UsageError(f"data.name={cfg.name}: a copy holds images and their labels alone, not: {', '.join(further)}")


def copy_image(data: SegmentationData, index: int, folder: Path) -> str:
    """Copy the image of a sample into a folder, under its key; return the name below that, with its ending."""
    image = data.files(index)[0]
    name = f"{data.key(index)}{image.suffix}"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, folder / name)
    return name


def label_to_copy(data: SegmentationData, index: int) -> np.ndarray | None:
    """Return the label (H, W) of a sample as far as it is certain; None without truth."""
    target = None if data.truth_file(index) is None else data.load(index).target
    return target.certain if isinstance(target, SemanticTarget) else None
