"""Small logits with labels, and the slow, obvious way from them to full-size probabilities, in numpy float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CANVAS = (16, 20)
CLASSES = 4


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return logits (2, 4, 4, 5) at stride 4 of CANVAS and labels (2, 13, 18) with ignored pixels and no class 3."""
    generator = np.random.default_rng(3)
    logits = torch.tensor(generator.normal(0, 2, (2, CLASSES, 4, 5))).to(dtype).requires_grad_()
    labels = generator.integers(0, 3, (2, 5, 6)).repeat(3, 1).repeat(3, 2)[:, :13, :18].astype(np.uint8)
    labels[generator.random(labels.shape) < 0.2] = 255
    return logits, torch.from_numpy(labels.copy())


def pixels(
    logits: Tensor, labels: Tensor, canvas: tuple[int, int] = CANVAS, align_corners: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return softmax probabilities (M, K) and labels (M,) of the labelled pixels, one after the other."""
    values = logits.detach().double().numpy()
    rows, columns = labels.shape[1:]
    probabilities, truth = [], []
    for image, label in zip(values, labels.numpy(), strict=True):
        for y in range(rows):
            for x in range(columns):
                if label[y, x] != 255:
                    score = np.exp(_sample(image, y, x, canvas, align_corners))
                    probabilities.append(score / score.sum())
                    truth.append(int(label[y, x]))
    return np.array(probabilities).reshape(-1, values.shape[1]), np.array(truth, dtype=int)


def overlap(logits: Tensor, labels: Tensor, k: int) -> tuple[float, float, float]:
    """Return soft true positives, false positives and false negatives of a class."""
    p, truth = pixels(logits, labels)
    return p[truth == k, k].sum(), p[truth != k, k].sum(), (1 - p[truth == k, k]).sum()


def _sample(image: np.ndarray, y: int, x: int, canvas: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Return the bilinear value (K,) of an image (K, h, w) at pixel (y, x) of the canvas."""
    (top, bottom, down), (left, right, across) = (
        _corners(place, size, samples, align_corners)
        for place, size, samples in zip((y, x), canvas, image.shape[1:], strict=True)
    )
    upper = (1 - across) * image[:, top, left] + across * image[:, top, right]
    lower = (1 - across) * image[:, bottom, left] + across * image[:, bottom, right]
    return (1 - down) * upper + down * lower


def _corners(place: int, size: int, samples: int, align_corners: bool) -> tuple[int, int, float]:
    at = place * (samples - 1) / (size - 1) if align_corners else (place + 0.5) * samples / size - 0.5
    at = min(max(at, 0.0), samples - 1.0)
    low = int(at)
    return low, min(low + 1, samples - 1), at - low
