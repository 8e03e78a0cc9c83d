"""What the rows work on: real images and labels where there are any, seeded ones otherwise."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.foreign import shared_folder
from benchmarks.rows import SEED, NotHereError

HEIGHT, WIDTH = 1024, 2048
CLASSES = 19
STRIDE = 4
SPREAD = 7
"""Factor on class numbers where there are many classes, so that the real ones do not stand side by side."""


def cityscapes_folder() -> Path | None:
    """Return a folder in Cityscapes' layout with real images, None where there is none."""
    shared = shared_folder()
    folder = shared / "data" / "samples" / "cityscapes" if shared else None
    return folder if folder and (folder / "leftImg8bit" / "train").is_dir() else None


def camvid_folder() -> Path | None:
    """Return a folder in SegNet's layout of CamVid with real images, None where there is none."""
    shared = shared_folder()
    folder = shared / "data" / "camvid" if shared else None
    return folder if folder and (folder / "trainannot").is_dir() else None


def is_real() -> bool:
    """Whether labels and images of 2048 x 1024 are real ones."""
    return cityscapes_folder() is not None


@cache
def street_labels() -> np.ndarray:
    """Return a label map (1024, 2048) uint8 of 0..18 and 255: a real street where there is one, else regions."""
    folder = cityscapes_folder()
    if folder is None:
        return region_labels(HEIGHT, WIDTH)
    file = sorted((folder / "gtFine" / "train").glob("*/*_labelTrainIds.png"))[0]
    labels = decode(file, cv2.IMREAD_UNCHANGED)
    return np.where(labels < CLASSES, labels, 255).astype(np.uint8)


def region_labels(height: int, width: int) -> np.ndarray:
    """Return a seeded label map: regions around random points, and an ignored strip along the bottom."""
    random = np.random.default_rng(SEED)
    points = random.random((80, 2)) * (height, width)
    classes = random.integers(0, CLASSES, len(points), dtype=np.uint8)
    rows, columns = np.arange(0, height, 2), np.arange(0, width, 2)
    nearest = np.full((len(rows), len(columns)), np.inf)
    labels = np.zeros(nearest.shape, np.uint8)
    for (row, column), value in zip(points, classes, strict=True):
        distance = (rows[:, None] - row) ** 2 + (columns[None] - column) ** 2
        closer = distance < nearest
        nearest[closer], labels[closer] = distance[closer], value
    labels = labels.repeat(2, 0).repeat(2, 1)[:height, :width]
    labels[height - height // 40 :] = 255
    return labels


@cache
def street_image() -> np.ndarray:
    """Return an image (1024, 2048, 3) uint8 RGB: a real street where there is one, else seeded texture."""
    folder = cityscapes_folder()
    if folder is None:
        random = np.random.default_rng(SEED)
        coarse = random.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        grain = random.integers(-12, 13, smooth.shape, dtype=np.int16)
        return (smooth + grain).clip(0, 255).astype(np.uint8)
    file = sorted((folder / "leftImg8bit" / "train").glob("*/*.png"))[0]
    return np.ascontiguousarray(decode(file, cv2.IMREAD_COLOR)[..., ::-1])


def decode(file: Path, flag: int) -> np.ndarray:
    """Return a file's pixels by OpenCV, in its order of colours."""
    values = cv2.imread(str(file), flag)
    if values is None:
        raise NotHereError(f"{file} cannot be read")
    return values


def network_batch(side: int) -> Tensor:
    """Return (1, 3, side, side) float: the middle of the street, normalised by ImageNet's statistics."""
    top, left = (HEIGHT - side) // 2, (WIDTH - side) // 2
    values = torch.from_numpy(street_image()[top : top + side, left : left + side].copy()).permute(2, 0, 1).float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((values / 255 - mean[:, None, None]) / std[:, None, None])[None].contiguous()


def prediction_of(labels: np.ndarray) -> np.ndarray:
    """Return a plausible prediction (H, W) uint8 for a label map: borders are off, and 2 pixels in 1000 are wrong."""
    random = np.random.default_rng(SEED + 1)
    guess = np.roll(labels, (3, 2), axis=(0, 1))
    guess[guess == 255] = 0
    wrong = random.random(guess.shape, dtype=np.float32) < 0.002
    guess[wrong] = random.integers(0, CLASSES, int(wrong.sum()), dtype=np.uint8)
    return guess


def spread_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return labels of 0..18 as labels of 0..classes-1, apart from each other; 255 stays."""
    return np.where(labels == 255, 255, labels.astype(np.int64) * SPREAD % classes).astype(np.uint8)


def label_like_logits(labels: np.ndarray, classes: int) -> Tensor:
    """Return (1, classes, H/4, W/4) logits whose best class mostly follows a label map (H, W).

    They are the logarithm of each class's blurred fraction of a cell, plus slow and fine noise.
    """
    generator = torch.Generator().manual_seed(SEED)
    height, width = labels.shape[0] // STRIDE, labels.shape[1] // STRIDE
    values = torch.from_numpy(labels)
    cover = torch.zeros(1, classes, height, width)
    for index in values.unique().tolist():
        if index < classes:
            cover[:, index] = F.avg_pool2d((values == index).float()[None], STRIDE)
    cover = F.avg_pool2d(cover, 3, stride=1, padding=1)
    slow = torch.randn(1, classes, max(1, height // 8), max(1, width // 8), generator=generator)
    fine = torch.randn(1, classes, height, width, generator=generator)
    logits = (cover + 1e-3).log() + 0.05 * fine
    logits += 0.5 * F.interpolate(slow, (height, width), mode="bilinear", align_corners=False)
    return logits.contiguous()


def noise_logits(classes: int, height: int, width: int) -> Tensor:
    """Return (1, classes, height/4, width/4) logits without any order: neighbours never agree."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(1, classes, height // STRIDE, width // STRIDE, generator=generator)
