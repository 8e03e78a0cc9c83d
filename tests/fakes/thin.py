"""A tiny binary grey set of thin curves, as membranes are: dark lines on uneven ground, dark spots that are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np


def write_thin(
    root: Path,
    *,
    counts: Mapping[str, int],
    size: tuple[int, int] = (256, 256),
    width: int = 3,
    curves: int = 8,
) -> Path:
    """Write ROOT/SPLIT/{images,masks}/NUMBER.png and classes.txt. Masks hold 1 on curves `width` pixels thick, or 0."""
    for split, count in counts.items():
        for index in range(count):
            generator = np.random.default_rng([list(counts).index(split), index])
            mask = np.zeros(size, np.uint8)
            for _ in range(curves):
                cv2.polylines(mask, [_curve(generator, size)], False, 1, width)
            for kind, array in (("images", _image(generator, mask)), ("masks", mask)):
                file = root / split / kind / f"{index:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), array)
    (root / "classes.txt").write_text("ground\nline\n")
    return root


def _curve(generator: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return points (N, 1, 2) int32 of a smooth curve through the image."""
    points = generator.uniform(-0.2, 1.2, (4, 2)) * size[::-1]
    t = np.linspace(0, 1, 60)[:, None]
    bend = (1 - t) ** 3 * points[0] + 3 * t * (1 - t) ** 2 * points[1] + 3 * t**2 * (1 - t) * points[2]
    return np.round(bend + t**3 * points[3]).astype(np.int32)[:, None]


def _image(generator: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8: lines are darker; as dark are spots that are no lines."""
    uneven = cv2.GaussianBlur(generator.normal(0, 1, mask.shape).astype(np.float32), (0, 0), 12) * 350
    spots = np.zeros(mask.shape, np.uint8)
    for _ in range(12):
        center = tuple(int(v) for v in generator.integers(0, mask.shape[::-1]))
        cv2.circle(spots, center, int(generator.integers(2, 7)), 1, -1)
    dark = cv2.GaussianBlur(np.maximum(mask, spots).astype(np.float32), (0, 0), 0.8)
    grey = 150 + uneven - 50 * dark + generator.normal(0, 22, mask.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)
