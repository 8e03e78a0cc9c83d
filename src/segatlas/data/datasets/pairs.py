"""Two images of one place at two dates, and masks of what has changed between them, or of what is there now.

`ROOT/{train,val[,test]}/{images,before,masks}/STEM.*` or `ROOT/{images,before,masks}/{train,val[,test]}/STEM.*`: the
image of the later date, the one of the earlier date, the mask. The three have one stem and one size. All else is as in
`folder`: classes, codes, splits, and what is held out where there is no val part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets.folder import FolderData, FolderOptions, split_folders
from segatlas.data.datasets.listing import SPLITS, Fault, Listing, Part
from segatlas.data.formats.listing import list_images
from segatlas.errors import DataError, UsageError
from segatlas.structures import SourceKind

BEFORE = "before"
"""The folder of the images of the earlier date, and the name of that source."""


class Pairs(FolderData):
    """One split of a folder of images at two dates and masks (see the head of this file)."""

    name = "pairs"
    layout = "train/images/, train/before/ and train/masks/, or images/train/, before/train/ and masks/train/"
    sources: Mapping[str, SourceKind] = {BEFORE: "image"}

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder is laid out as `folder` is, and a split has images of an earlier date."""
        found = (split_folders(root, split) for split in SPLITS)
        return super().fits(root) and any(pair is not None and _before(pair[0], root).is_dir() for pair in found)

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> Listing:
        """List all splits as `folder` does, each item with its image of the earlier date."""
        if cfg.options(FolderOptions).lists:
            raise UsageError("data.lists: not with data.name=pairs, whose files are matched by stem; remove it")
        listed = super().listing(cfg, root, splits)
        parts, faults = {}, list(listed.faults)
        for split, part in listed.parts.items():
            folder = _before(listed.folders[split][0], root)
            parts[split] = _with_before(part, folder)
            lost = tuple(item.image for item in parts[split].items if BEFORE not in item.sources)
            if lost:
                fault = f"no image of the earlier date of the same stem in {folder}"
                repair = "add it, or take the image and its mask away"
                faults.append(Fault(kind="list", files=lost, fault=fault, repair=repair))
        return replace(listed, name=cls.name, parts=parts, faults=tuple(faults))


def _before(images: Path, root: Path) -> Path:
    """Return the folder of the earlier date's images beside that of the later date's."""
    return root.joinpath(*(BEFORE if part == "images" else part for part in images.relative_to(root).parts))


def _with_before(part: Part, folder: Path) -> Part:
    """Return a split whose items have their image of the earlier date; its first fault where one is missing."""
    found = list_images(folder)
    items = tuple(
        replace(item, sources={BEFORE: found[item.key][0]}) if item.key in found else item for item in part.items
    )
    lost = next((item for item in items if BEFORE not in item.sources), None)
    error = part.error
    if error is None and lost is not None:
        error = DataError(f"has no image of the earlier date: expected {folder / lost.key}.*", lost.image)
    return replace(part, items=items, error=error)
