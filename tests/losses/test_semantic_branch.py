"""The loss of the semantic branch against a slow obvious form, with ignored pixels and padding."""

from __future__ import annotations

import math

import pytest
import torch

from segatlas.losses import LOSSES
from segatlas.structures import DetectedMasks

N, S, SIZE, MAP, CANVAS = 2, 3, (10, 13), (4, 4), (16, 16)


def output(labels: torch.Tensor, seed: int = 0) -> DetectedMasks:
    draw = torch.Generator().manual_seed(seed)
    semantic = torch.randn(N, S, *MAP, generator=draw, dtype=torch.float64, requires_grad=True)
    return DetectedMasks((), (), (), (), canvas=CANVAS, semantic=semantic, raw={"semantic_labels": labels})


def slow(semantic: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean of minus the logarithm of the right class's probability, pixel by pixel."""
    total, count = 0.0, 0
    for image in range(N):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                label = int(labels[image, y, x])
                if label == 255:
                    continue
                logits = [at(semantic[image, kind], y, x) for kind in range(S)]
                largest = max(logits)
                total += math.log(sum(math.exp(z - largest) for z in logits)) + largest - logits[label]
                count += 1
    return total / count


def at(values: torch.Tensor, y: int, x: int) -> float:
    """Return the value of a map at a pixel of the canvas: bilinear between the centres of its cells."""
    weights = []
    for place, cells, length in ((y, MAP[0], CANVAS[0]), (x, MAP[1], CANVAS[1])):
        position = max((place + 0.5) * cells / length - 0.5, 0.0)
        low = min(int(position), cells - 1)
        weights.append(((low, 1 - (position - low)), (min(low + 1, cells - 1), position - low)))
    return sum(float(values[row, column]) * a * b for row, a in weights[0] for column, b in weights[1])


def some_labels() -> torch.Tensor:
    labels = torch.randint(0, S, (N, *SIZE), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    labels[0, :3], labels[1, :, 9:] = 255, 255
    return labels


def test_it_is_the_mean_cross_entropy_of_pixels_that_are_not_ignored():
    given = output(some_labels())
    assert given.semantic is not None
    value = LOSSES["semantic_branch"]()(given, [])
    assert float(value.detach()) == pytest.approx(slow(given.semantic.detach(), some_labels()), rel=1e-9)


def test_ignored_pixels_and_the_padding_beyond_the_image_have_no_gradient():
    given = output(some_labels())
    assert given.semantic is not None
    LOSSES["semantic_branch"]()(given, []).backward()
    gradient = given.semantic.grad
    assert gradient is not None
    assert gradient[1, :, :, 3].abs().max() == 0  # pixels before the ninth lie between centres further left
    assert gradient[0].abs().max() > 0


def test_a_batch_without_a_labelled_pixel_costs_nothing():
    given = output(torch.full((N, *SIZE), 255, dtype=torch.uint8))
    value = LOSSES["semantic_branch"]()(given, [])
    assert float(value) == 0
