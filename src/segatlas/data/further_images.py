"""A folder of images without labels, to learn from beside labelled ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data.dataset import SegmentationData
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.images import decode_image
from segatlas.data.formats.listing import list_images
from segatlas.data.sample import Sample
from segatlas.errors import DataError, UsageError

LOGGER = logging.getLogger("segatlas")


@dataclass(frozen=True, kw_only=True)
class FurtherImages:
    """The images of a folder, in the order of their paths. channels: those that each is read with."""

    root: Path
    files: tuple[Path, ...]
    channels: int

    @classmethod
    def of(cls, cfg: DataConfig, train: SegmentationData, others: Sequence[SegmentationData] = ()) -> Self:
        """Return the images of `data.unlabelled` that are no labelled ones.

        Images of train are left out, for they are learned from already; those of other splits, for scores are taken
        there.

        Args:
            cfg: the recipe's `data` section.
            train: the labelled images.
            others: splits whose images are not to be seen.

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
        known = {train.files(index)[0].resolve() for index in range(len(train))}
        unseen = {data.files(index)[0].resolve() for data in others for index in range(len(data))}
        kept = tuple(path for path in found if path.resolve() not in known | unseen)
        if not kept:
            raise DataError("data.unlabelled holds the labelled images and no other: nothing is learned from it", root)
        if len(kept) < len(found):
            LOGGER.info("data.unlabelled: %d of %d images are labelled ones, and are left out", len(found) - len(kept),
                        len(found))  # fmt: skip
        return cls(root=root, files=kept, channels=train.channels)

    def __len__(self) -> int:
        return len(self.files)

    def load(self, index: int) -> Sample:
        """Read one image. DataError where it cannot be read."""
        path = self.files[index]
        image: np.ndarray = decode_image(read_bytes(path), self.channels, name=path)
        return Sample(image=image, target=None, key=path.relative_to(self.root).as_posix(), index=index)
