"""Several scales as HRNet's descendants publish them, beside a plain version of the same steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.inference import Predictor
from segatlas.inference.images import ImageBatch, prepare

SIZE = (64, 96)
"""At every scale a multiple of 8, which the published network needs."""


def published(net, image, scales):
    """Return the sums (1, K, H, W) by loops over scales, rows and columns of tiles."""
    height, width = image.shape[-2:]
    total = torch.zeros(())
    for scale in scales:
        size = tuple(int(side * scale + 0.5) for side in (height, width))
        seen = F.interpolate(image, size, mode="bilinear", align_corners=False)
        sums, hits = torch.zeros(1, 3, *size), torch.zeros(size)
        for row in range(math.ceil(max(size[0] - height, 0) / height) + 1):
            for column in range(math.ceil(max(size[1] - width, 0) / width) + 1):
                bottom, right = min(row * height + height, size[0]), min(column * width + width, size[1])
                top, left = max(bottom - height, 0), max(right - width, 0)
                part = seen[..., top:bottom, left:right]
                logits = F.interpolate(net(part).logits, part.shape[-2:], mode="bilinear", align_corners=True)
                sums[..., top:bottom, left:right] += logits.exp()
                hits[top:bottom, left:right] += 1
        total = total + F.interpolate(sums / hits, (height, width), mode="bilinear", align_corners=True)
    return total


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = create_model("sanet", width=4, channels=8, depths=[1, 1, 1, 1], num_classes=3).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(40)
    return net, make_card(net, classes=("a", "b", "c"))


@pytest.mark.parametrize("scales", [(0.5, 1.0), (0.5, 0.75, 1.0, 1.25)])
def test_labels_and_probabilities_are_those_of_the_published_steps(model, scales):
    net, card = model
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    words = f"scales:{','.join(map(str, scales))},exp"
    found = Predictor(net, card, device="cpu", tta=words).predict(image, confidence=True)
    inputs = ImageBatch([prepare(image, card)], torch.device("cpu")).whole()
    with torch.no_grad():
        total = published(net, inputs, scales)
    expected = total / total.sum(1, keepdim=True)
    best = expected.sort(dim=1).values[0]
    sure = (best[-1] - best[-2] > 1e-4).numpy()
    assert len(set(expected.argmax(1).flatten().tolist())) > 1
    assert np.array_equal(found.semantic[sure], expected.argmax(1)[0].numpy()[sure])
    assert np.abs(found.confidence - best[-1].numpy()).max() < 1e-4


def test_large_logits_do_not_overflow_and_flips_and_windows_are_added_too(model):
    net, card = model
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    with torch.no_grad():
        net.classifier.weight.mul_(20)
        found = Predictor(net, card, device="cpu", tta="scales:1,1.25,flips,turns,exp", window=32).predict(
            image, confidence=True
        )
        net.classifier.weight.div_(20)
    assert np.isfinite(found.confidence).all()
