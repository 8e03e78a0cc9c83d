"""A folder of images without labels, to learn from beside labelled ones."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.headers import equal_files, head_of_image
from segatlas.data.datasets import dataset_class
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.images import decode_image
from segatlas.data.formats.listing import list_images
from segatlas.data.options import checked
from segatlas.data.sample import Sample
from segatlas.errors import DataError, UsageError

LOGGER = logging.getLogger("segatlas")
JOBS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class FurtherImages:
    """The images of a folder, in the order of their paths. channels: those that each is read with."""

    root: Path
    files: tuple[Path, ...]
    channels: int

    @classmethod
    def of(cls, cfg: DataConfig, channels: int) -> Self:
        """Return the images of `data.unlabelled` that are no labelled ones, nor copies of these, nor labels.

        Images of train are left out, for they are learned from already; those of other splits with a truth, for scores
        are taken there.

        Args:
            cfg: the recipe's `data` section.
            channels: those that labelled images have.

        Raises:
            UsageError: the key is not set.
            DataError: no such folder, or it holds no image but labelled ones.
        """
        if cfg.unlabelled is None:
            raise UsageError("data.unlabelled is not set: the folder of images without labels")
        root = Path(cfg.unlabelled).expanduser()
        if not root.is_dir():
            raise DataError(
                f"data.unlabelled {'is a file, expected a folder' if root.exists() else 'is missing'}", root
            )
        found = [path for paths in list_images(root).values() for path in paths]
        if not found:
            raise DataError("data.unlabelled holds no image", root)
        labelled, labels, places = _known(cfg)
        kept = [path for path in found if (real := path.resolve()) not in labels and not places & set(real.parents)]
        masks = len(found) - len(kept)
        same = equal_files([*labelled, *kept], JOBS)
        copied = {same[path] for path in labelled if path in same}
        kept = [path for path in kept if path.resolve() not in labelled and same.get(path) not in copied]
        known = len(found) - masks - len(kept)
        if not kept:
            what = "labels and no image" if masks == len(found) else "labelled images and no other"
            raise DataError(f"data.unlabelled holds {what}: nothing is learned from it", root)
        for count, what in ((known, "labelled ones, or copies of them"), (masks, "labels, or lie among these")):
            if count:
                LOGGER.info("data.unlabelled: %d of %d files are %s, and are left out", count, len(found), what)
        return cls(root=root, files=tuple(kept), channels=channels)

    def check_headers(self) -> None:
        """Read the header of each image. DataError where one is none, before a training meets it."""
        with ThreadPoolExecutor(max_workers=JOBS) as pool:
            looks = pool.map(partial(head_of_image, channels=self.channels), self.files)
        faulty = [look for look in looks if look.fault]
        if faulty:
            more = f"; and {len(faulty) - 1} more files of data.unlabelled cannot be read" if len(faulty) > 1 else ""
            raise DataError(f"{faulty[0].fault}{more}", faulty[0].path)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Sample:
        """Read one image. DataError where it cannot be read."""
        path = self.files[index]
        image: np.ndarray = decode_image(read_bytes(path), self.channels, name=path)
        return Sample(image=image, target=None, key=path.relative_to(self.root).as_posix(), index=index)


def _known(cfg: DataConfig) -> tuple[set[Path], set[Path], set[Path]]:
    """Return where the images lie that have labels, the files of labels, and folders in which labels alone lie."""
    cfg = checked(cfg)
    listing = list_dataset_files(cfg, dataset_class(cfg.name).prepare(cfg))
    images: set[Path] = set()
    labels: set[Path] = set()
    places = {masks for _, masks in listing.folders.values()}
    for split, part in listing.parts.items():
        for item in part.items:
            truths = [path for path in (item.target, *item.truths.values()) if path is not None]
            labels |= {*truths, *item.sources.values()}
            if split == "train" or truths:
                images.add(item.image)
        labels |= {*part.masks_without_image, *(path for one in part.companions.values() for path in one.extra)}
        places |= {one.folder for one in part.companions.values() if not one.is_table}
    images = {path.resolve() for path in images}
    labels = {path.resolve() for path in labels}
    places |= {path for path in labels if not path.suffix and path.is_dir()}  # a folder may stand for the files in it
    holding = {folder for path in images for folder in path.parents}
    return images, labels - images, {path.resolve() for path in places} - holding
