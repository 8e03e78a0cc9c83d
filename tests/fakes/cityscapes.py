"""A tiny Cityscapes in its true tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

STEMS = {
    "train": ("aachen/aachen_000000_000019", "bremen/bremen_000001_000019", "aachen/aachen_000001_000019"),
    "val": ("frankfurt/frankfurt_000000_000294",),
    "test": ("berlin/berlin_000000_000019",),
}
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of train ids 0..18."""


THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of things."""


def write_cityscapes(
    root: Path, *, train_ids: bool = False, objects: bool = False, size: tuple[int, int] = (32, 64)
) -> Path:
    """Write images and labelIds, or labelTrainIds files instead, and instanceIds where asked; test has no masks."""
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            label_ids = blocks(number, range(34), size)
            save_image(
                root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", image_of(label_ids, number + 100 * part)
            )
            if split == "test":
                continue
            mask = root / "gtFine" / split / f"{stem}_gtFine_label{'TrainIds' if train_ids else 'Ids'}.png"
            save_codes(mask, to_train_ids(label_ids) if train_ids else label_ids)
            if objects:
                ids = np.where(np.isin(label_ids, THINGS), label_ids.astype(np.int64) * 1000 + 1, label_ids)
                Image.fromarray(ids.astype(np.uint16)).save(mask.with_name(f"{mask.name[:-12]}instanceIds.png"))
    return root


def to_train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Return train ids, found one by one."""
    train_ids = np.full(label_ids.shape, 255, np.uint8)
    for train_id, label_id in enumerate(EVALUATED):
        train_ids[label_ids == label_id] = train_id
    return train_ids
