"""The listing that `data check` looks at: the dataset's own, of one split or of all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segatlas.config.schema import DataConfig
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.listing import SPLITS, FileListing, Part
from segatlas.data.datasets.truths import INSTANCES
from segatlas.errors import UsageError


def list_dataset_files(cfg: DataConfig, root: Path, split: str | None = None, target: str | None = None) -> FileListing:
    """List the files of a dataset, of one split or of all. Splits of which only a fault is known are left out.

    target: the only type of truth that is listed, besides masks where it is not objects; None = all that there are.

    Raises:
        UsageError: an unknown split, keys that contradict one another, or a truth that the dataset does not give.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"--split: got {split!r}, expected one of {', '.join(SPLITS)}")
    kind = dataset_class(cfg.name)
    if target is not None:
        kind.require_target(target)
    listing = kind.listing(cfg, root).with_truths(kind.targets if target is None else (target,))
    if target == INSTANCES and target in listing.truths:
        listing = listing.without_masks()
    known = {
        name: part for name, part in listing.parts.items() if part.error is None or replace(part, error=None) != Part()
    }
    sources = {**kind.sources_of(cfg), **listing.sources}
    listing = replace(listing, parts=known, channels=cfg.channels, accept=cfg.accept, sources=sources)
    if split is None:
        return listing
    if split not in listing.parts:
        raise UsageError(f"--split {split}: {root} has {', '.join(listing.parts) or 'no split'}")
    return replace(
        listing,
        parts={split: listing.parts[split]},
        folders={name: folders for name, folders in listing.folders.items() if name == split},
        chosen=split,
    )
