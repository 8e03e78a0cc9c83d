"""A tiny folder of images and masks in any of its layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fakes.images import blocks, image_of, save_codes, save_image

COUNTS = {"train": 6, "val": 2}


def write_folder(
    root: Path,
    *,
    layout: str = "split_first",
    counts: Mapping[str, int] = COUNTS,
    codes: Sequence[int] = (0, 1, 2),
    size: tuple[int, int] = (32, 48),
    channels: int = 3,
    ending: str = ".png",
) -> Path:
    """Write ROOT/SPLIT/{images,masks} ("split_first"), ROOT/{images,masks}/SPLIT ("kind_first") or no splits ("flat").

    Every mask holds every code. "flat" writes the train part only.
    """
    for split, count in counts.items():
        for index in range(count):
            number = index + 100 * list(counts).index(split)
            raw = blocks(number, codes, size)
            save_image(
                _folder(root, layout, split, "images") / f"{number:03d}{ending}", image_of(raw, number, channels)
            )
            save_codes(_folder(root, layout, split, "masks") / f"{number:03d}.png", raw)
    return root


def _folder(root: Path, layout: str, split: str, kind: str) -> Path:
    return {"split_first": root / split / kind, "kind_first": root / kind / split, "flat": root / kind}[layout]
