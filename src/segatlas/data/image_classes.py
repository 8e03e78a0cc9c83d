"""Images that have one class as a whole, in folders of classes: what an encoder's weights are learned from first.

    ROOT/train/CLASS/*    any image endings, subfolders of a class too
    ROOT/val/CLASS/*      the same classes, or some of them

Classes are the folders of `train` in the order of their names, as torchvision's ImageFolder counts them. This is no
dataset of masks: nothing but `pretrain` reads it.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segatlas.data.formats.images import read_image
from segatlas.data.formats.listing import is_hidden, is_image_name, walk_files
from segatlas.data.sample import Sample
from segatlas.errors import DataError
from segatlas.printable import printable

LOGGER = logging.getLogger("segatlas")
NAME = "image folder"
LAYOUT = "train/CLASS/* and val/CLASS/*"
LOOKED_AT = 32
"""Images of a split that are decoded before a training begins."""
NAMED = 5
"""Folders that an error names at most."""


@dataclass(frozen=True, kw_only=True)
class ImageClasses:
    """One split: its images, each with the number of its class. `classes`: names of all of train, in that order."""

    root: Path
    split: str
    classes: tuple[str, ...]
    images: tuple[tuple[Path, int], ...]
    channels: int = 3
    name: str = NAME

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def key(self, index: int) -> str:
        """Return the image's path below the split, without its ending."""
        return self.images[index][0].relative_to(self.root / self.split).with_suffix("").as_posix()

    def files(self, index: int) -> tuple[Path, None]:
        """Return the image's file; there is no mask."""
        return self.images[index][0], None

    def class_of(self, index: int) -> int:
        """Return the number of the image's class, 0..K-1."""
        return self.images[index][1]

    def load(self, index: int) -> Sample:
        """Read one image. Raises DataError naming the file when it cannot be read."""
        return Sample(
            image=read_image(self.images[index][0], self.channels), target=None, key=self.key(index), index=index
        )


def open_image_classes(root: str | Path | None, channels: int = 3) -> tuple[ImageClasses, ImageClasses]:
    """Return train and val of a folder.

    Raises:
        DataError: no such folder, one laid out otherwise, a class without an image, or a class of val that train lacks.
    """
    if root is None:
        raise DataError(f"data.root is not set; expected a folder with {LAYOUT}")
    place = Path(root).expanduser()
    for split in ("train", "val"):
        if not (place / split).is_dir():
            raise DataError(f"has no folder {split}/, expected {LAYOUT}; it holds {_content(place)}", place)
    classes = _classes(place / "train")
    if len(classes) < 2:
        raise DataError(f"holds {len(classes)} folders of classes, expected at least 2", place / "train")
    _refuse_unknown(_classes(place / "val"), classes, place / "val")
    train, val = (_split(place, split, classes, channels) for split in ("train", "val"))
    _require_images(train, [name for index, name in enumerate(classes) if index not in _present(train)])
    missing = [name for index, name in enumerate(classes) if index not in _present(val)]
    if len(missing) == len(classes):
        raise DataError(f"holds no image, expected {LAYOUT}", place / "val")
    if missing:
        LOGGER.warning("data: no image in %s of: %s", printable(place / "val"), _some(missing))
    return train, val


def look_at_images(*splits: ImageClasses) -> int:
    """Decode images spread over each split, the first and the last too; return how many.

    Raises:
        DataError: naming the first that cannot be read.
    """
    looked = 0
    for split in splits:
        for index in np.unique(np.linspace(0, len(split) - 1, LOOKED_AT).round().astype(int)):
            split.load(int(index))
            looked += 1
    return looked


def _classes(folder: Path) -> tuple[str, ...]:
    loose = sorted(path.name for path in folder.iterdir() if path.is_file() and is_image_name(path))
    if loose:
        raise DataError(f"holds images beside the folders of classes: {_some(loose)}", folder)
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)))


def _refuse_unknown(found: tuple[str, ...], classes: tuple[str, ...], folder: Path) -> None:
    unknown = [name for name in found if name not in classes]
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], classes, n=1)
    hint = f"; did you mean {printable(near[0])!r}" if near else ""
    raise DataError(f"holds classes that train/ has not: {_some(unknown)}{hint}", folder)


def _split(root: Path, split: str, classes: tuple[str, ...], channels: int) -> ImageClasses:
    images = tuple(
        (path, index)
        for index, name in enumerate(classes)
        if (root / split / name).is_dir()
        for path in sorted(walk_files(root / split / name))
        if is_image_name(path)
    )
    return ImageClasses(root=root, split=split, classes=classes, images=images, channels=channels)


def _require_images(split: ImageClasses, empty: list[str]) -> None:
    if empty:
        more = f" (so do {len(empty) - 1} more: {_some(empty[1:])})" if len(empty) > 1 else ""
        raise DataError(
            f"a class without an image{more}; remove the folder or fill it", split.root / split.split / empty[0]
        )


def _present(split: ImageClasses) -> set[int]:
    return {index for _, index in split.images}


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _content(folder: Path) -> str:
    if not folder.is_dir():
        return "nothing, for it is not there"
    return _some(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())) or "nothing"
