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
from segatlas.data.formats.guards import is_volume_name, pixel_limit
from segatlas.data.formats.images import write_image
from segatlas.data.options import checked
from segatlas.data.transforms.geometry import Size, resized_size
from segatlas.data.transforms.warp import resize_image
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


def copy_image(data: SegmentationData, index: int, folder: Path, resize: str | None = None) -> str:
    """Copy the image of a sample into a folder, under its key; return the name below that, with its ending.

    With `resize`, one of the forms of `transforms.resize`, it is written at that size, as PNG or TIFF.
    """
    key, image = data.key(index), data.files(index)[0]
    (folder / key).parent.mkdir(parents=True, exist_ok=True)
    if resize is not None:
        stored = data.load(index).image
        file = write_image(folder / key, resize_image(stored, new_size(resize, (stored.shape[0], stored.shape[1]))))
        return f"{key}{file.suffix}"
    shutil.copyfile(image, folder / f"{key}{image.suffix}")
    return f"{key}{image.suffix}"


def new_size(resize: str, size: Size) -> Size:
    """Return the (height, width) that a copy of an image of `size` gets. Raises UsageError where that is too large."""
    new = resized_size(resize, size)
    if new[0] * new[1] > (limit := pixel_limit()):
        raise UsageError(f"resize: {resize} makes {new[0]}x{new[1]} of {size[0]}x{size[1]}: over {limit} pixels")
    return new


def label_to_copy(data: SegmentationData, index: int) -> np.ndarray | None:
    """Return the label (H, W) of a sample as far as it is certain; None without truth."""
    target = None if data.truth_file(index) is None else data.load(index).target
    return target.certain if isinstance(target, SemanticTarget) else None
