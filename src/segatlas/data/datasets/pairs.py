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
from segatlas.data.datasets.folder import FolderData, FolderOptions, sibling_folder, split_folders
from segatlas.data.datasets.listing import SPLITS, FileListing, with_companions
from segatlas.errors import UsageError
from segatlas.structures import SourceKind

BEFORE = "before"
"""The folder of the images of the earlier date, and the name of that source."""


class Pairs(FolderData):
    """One split of a folder of images at two dates and masks (see the head of this file)."""

    name = "pairs"
    targets = ("SemanticTarget",)
    layout = "train/images/, train/before/ and train/masks/, or images/train/, before/train/ and masks/train/"
    sources: Mapping[str, SourceKind] = {BEFORE: "image"}

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether a folder is laid out as `folder` is, and a split has images of an earlier date."""
        found = [folders[0] for split in SPLITS if (folders := split_folders(root, split)) is not None]
        return super().fits(root) and any(sibling_folder(images, root, BEFORE).is_dir() for images in found)

    @classmethod
    def listing(cls, cfg: DataConfig, root: Path, splits: Sequence[str] = SPLITS) -> FileListing:
        """List all splits as `folder` does, each item with its image of the earlier date."""
        if cfg.options(FolderOptions).lists:
            raise UsageError("data.lists: not with data.name=pairs, whose files are matched by stem; remove it")
        listed = super().listing(cfg, root, splits)
        parts = {}
        for split, part in listed.parts.items():
            images = listed.folders[split][0]
            before = sibling_folder(images, root, BEFORE)
            parts[split] = with_companions(
                part, BEFORE, BEFORE, "image of the earlier date", images, before, is_input=True
            )
        return replace(listed, name=cls.name, parts=parts)
