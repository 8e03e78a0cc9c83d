"""Write any readable dataset as a plain folder, and predictions of Cityscapes as the test server wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, targets_of
from segatlas.data.checks.examine import available_splits
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.object_files import write_objects
from segatlas.data.checks.repair import check_new_folder
from segatlas.data.checks.repairable import lost_entries, lost_in_copy
from segatlas.data.checks.scan import Progress
from segatlas.data.copies import copy_image
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.annotations import SEMANTIC
from segatlas.data.datasets.cityscapes import to_label_ids
from segatlas.data.datasets.truths import INSTANCES
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import read_mask, write_mask
from segatlas.data.options import checked
from segatlas.data.transforms.geometry import Resize, resized_size
from segatlas.data.transforms.targets import size_of_target, warp_target
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder
from segatlas.structures import InstancesTarget, SemanticTarget, Target


def to_folder(
    cfg: DataConfig,
    out: str | Path,
    progress: Progress | None = None,
    *,
    target: str | None = None,
    resize: str | None = None,
) -> dict[str, int]:
    """Write a dataset as `OUT/{split}/{images,masks}/KEY.*` with index masks and `classes.json`.

    Images are copied as they are; masks hold 0..K-1, and 255 for ignore. A set without a val part gets the
    part that is held out of train. `out` appears when all of it is there.

    Args:
        cfg: the recipe's `data` section.
        out: the folder to make.
        progress: called with (images written, images in all).
        target: the only type of truth that is wanted; default: all that the dataset gives.
        resize: write images at another size, by one of the forms of `transforms.resize`; a pixel of a label is that
            of the nearest source pixel, and objects of which no pixel is left are left out.

    Returns:
        The number of images in each split.

    Raises:
        DataError: no split, a file that cannot be read, or `out` cannot be written.
        UsageError: `out` is not empty, or lies in the dataset itself; the copy would lose further inputs, or
            truths that are no masks; `resize` has none of its forms.
    """
    out = Path(out)
    if resize is not None:
        resized_size(resize, (1, 1))
    check_new_folder(out, cfg.root)
    splits = {
        split: create_dataset(cfg, split, target=_plainest(cfg, split, target)) for split in available_splits(cfg)
    }
    named = next((one for one in splits.values() if _has_masks(one)), next(iter(splits.values())))
    known = checked(cfg)
    listing = list_dataset_files(known, dataset_class(cfg.name).prepare(known), target=target)
    if lost := lost_in_copy(listing, keeps=(INSTANCES,)):
        raise UsageError(f"data.name={cfg.name}: {lost}")
    if target in (None, INSTANCES) and (lost := lost_entries(listing)):
        raise DataError(lost, cfg.root)
    objects = {}
    there = any(item.truths.get(INSTANCES) for part in listing.parts.values() for item in part.items)
    if there and target in (None, INSTANCES):
        parts = [(split, listing.parts.get(split)) for split in splits]  # a part that is held out is none of its own
        given = [split for split, part in parts if part is None or any(i.truths.get(INSTANCES) for i in part.items)]
        objects = {split: create_dataset(cfg, split, target=INSTANCES) for split in given}
    total, done = sum(map(len, splits.values())), 0
    with whole_folder(out, durable=False) as temporary:
        for split, dataset in splits.items():
            for index in range(len(dataset)):
                key = dataset.key(index)
                copy_image(dataset, index, temporary / split / "images", resize)
                label = _whole_label(dataset, index, resize)
                if label is not None:
                    write_mask(temporary / split / "masks" / f"{key}.png", label, dataset.palette)
                truth = _resized(objects[split].truth(index), resize) if split in objects else None
                if isinstance(truth, InstancesTarget):
                    names = objects[split].classes
                    foreign = [name for name in names if name not in named.classes]
                    if foreign:
                        raise UsageError(f"objects have the class {foreign[0]!r}, masks have none of it")
                    write_objects(temporary / split / "instances", key, truth, names)
                done += 1
                if progress:
                    progress(done, total)
        write_classes(temporary / JSON_FILE, named.classes, named.palette)
    return {split: len(dataset) for split, dataset in splits.items()}


def _plainest(cfg: DataConfig, split: str, target: str | None) -> str:
    """Return the truth by which a split is opened: masks where it has some, else objects, which are then all it has."""
    given = targets_of(cfg, split)
    return INSTANCES if target is None and SEMANTIC not in given and INSTANCES in given else SEMANTIC


def _resized(target: Target | None, resize: str | None) -> Target | None:
    """Return a truth at the size at which its image is written."""
    if target is None or resize is None:
        return target
    return warp_target(target, Resize(target=resize).draw(np.random.default_rng(0), size_of_target(target)))


def _whole_label(data: SegmentationData, index: int, resize: str | None) -> np.ndarray | None:
    """Return the label (H, W) of a copied sample; None without. UsageError where it says less than a mask can hold."""
    if data.truth_file(index) is None:
        return None
    target = _resized(data.load(index).target, resize)
    if not isinstance(target, SemanticTarget):
        return None
    if target.annotated is not None or target.present is not None:
        raise UsageError(f"{data.key(index)}: some classes were not annotated there, which masks of a copy cannot say")
    return np.asarray(target.labels)


def _has_masks(data: SegmentationData) -> bool:
    return any(data.files(index)[1] is not None for index in range(len(data)))


def to_cityscapes_ids(source: str | Path, out: str | Path, progress: Progress | None = None) -> int:
    """Turn a folder of predictions (train ids 0..18, 255) into label ids under the same names, as PNG.

    Returns:
        The number of files written. `out` appears when all of it is there.

    Raises:
        DataError: no mask there, a value that is no train id, or `out` cannot be written.
        UsageError: `out` is not empty, or lies in the source.
    """
    source, out = Path(source), Path(out)
    check_new_folder(out, source)
    masks = list_images(source)
    if not masks:
        raise DataError("holds no masks", source)
    with whole_folder(out, durable=False) as temporary:
        for number, (key, paths) in enumerate(masks.items(), start=1):
            labels = read_mask(paths[0])
            try:
                write_mask(temporary / f"{key}.png", to_label_ids(labels))
            except DataError as error:
                raise DataError(str(error), paths[0]) from error
            if progress:
                progress(number, len(masks))
    return len(masks)
