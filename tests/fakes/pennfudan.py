"""A tiny Penn-Fudan in its true tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image


def write_pennfudan(root: Path, *, count: int = 6, size: tuple[int, int] = (30, 40)) -> Path:
    """Write images and maps in which each pedestrian has a number."""
    for number in range(count):
        codes = np.zeros(size, np.int64)
        for one in range(1, 2 + number % 3):
            codes[3 * one : 3 * one + 10, 11 * one - 8 : 11 * one] = one
        stem = f"FudanPed{number:05d}"
        image = image_of(codes + blocks(number, (0, 5), size), number)
        save_image(root / "PennFudanPed" / "PNGImages" / f"{stem}.png", image)
        save_codes(root / "PennFudanPed" / "PedMasks" / f"{stem}_mask.png", codes)
    return root
