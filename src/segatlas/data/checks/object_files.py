"""Objects of an image as files of a folder: `KEY.png` with `KEY.json`, or `KEY/n_CLASS.png` where they overlap."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segatlas.data.datasets.truths import object_class_text
from segatlas.data.formats.masks import write_mask
from segatlas.structures import InstancesTarget

MOST_NUMBERED = 65535
"""Objects that a map of 16 bits can number."""

MOST_NAME = 200
"""Bytes of a file's name."""


def without_repeated(target: InstancesTarget) -> InstancesTarget:
    """Return the objects, those that have pixels and class of an earlier one left out."""
    masks, kinds, crowd = (np.asarray(part) for part in target[:3])
    seen: set[tuple[bytes, int]] = set()
    kept = []
    for row, (mask, kind) in enumerate(zip(masks, kinds.tolist(), strict=True)):
        key = (np.packbits(mask).tobytes(), kind)
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return InstancesTarget(masks[kept], kinds[kept], crowd[kept])


def write_objects(folder: Path, key: str, target: InstancesTarget, names: tuple[str, ...]) -> None:
    """Write the objects of an image as a map with its table, or as a file an object where they overlap."""
    masks, kinds, crowd = (np.asarray(part) for part in target[:3])
    if len(masks) <= MOST_NUMBERED and not (masks.sum(axis=0, dtype=np.int32) > 1).any():
        numbers = np.zeros(masks.shape[1:], np.uint16)
        for row, mask in enumerate(masks):
            numbers[mask] = row + 1
        write_mask(folder / f"{key}.png", numbers)
        table = [{"id": row + 1, "class": names[kind], "crowd": bool(many)}
                 for row, (kind, many) in enumerate(zip(kinds.tolist(), crowd.tolist(), strict=True))]  # fmt: skip
        (folder / f"{key}.json").write_text(json.dumps(table) + "\n", encoding="utf-8")
        return
    for row, (mask, kind, many) in enumerate(zip(masks, kinds.tolist(), crowd.tolist(), strict=True)):
        name = object_file(row, kind, names, crowd=many)
        write_mask(folder / key / name, np.where(mask, 255, 0).astype(np.uint8))


def object_file(row: int, kind: int, names: tuple[str, ...], *, crowd: bool) -> str:
    """Return the name of an object's file: its class is read from it again, by its index where the name is no help."""
    end = "_crowd.png" if crowd else ".png"
    named = f"{row:06d}_{names[kind]}{end}"
    is_file = not set(names[kind]) & set('/\\:*?"<>|\0') and len(named.encode()) < MOST_NAME
    if is_file and object_class_text(Path(named)) == (names[kind], crowd):
        return named
    return f"{kind}_{row:06d}{end}"
