"""Sets heat maps of `segatlas.explain` beside those of pytorch-grad-cam, of the same network, layer and target.

    python tools/beside_grad_cam.py MODEL IMAGE [--layer NAME ...] [--class NAME ...]

Run by an interpreter that has both. For semantic networks whose layers give (N, C, h, w). The image is cut to sides
that are multiples of 32, so that no network pads it: the other one stretches a padded map over the image, ours leaves
the padding out. Prints for each layer and class the largest and the mean difference of heats of 0..1.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import segatlas
from segatlas import explain
from segatlas.data.formats import read_image
from segatlas.explain.seeing import SeenImage

MULTIPLE = 32
MOST = 1e-4
"""A larger difference is none of rounding; the tool exits 1 then."""


class Logits(nn.Module):
    """A network whose output are its logits at the image's size."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to logits (N, K, H, W)."""
        out = self.network(image)
        mode, align_corners = out.resample
        return nn.functional.interpolate(out.logits, size=out.canvas, mode=mode, align_corners=align_corners)


class Summed:
    """The target of the other one: the logits of a class over a region."""

    def __init__(self, kind: int, inside: np.ndarray):
        self.kind, self.inside = kind, torch.from_numpy(inside)

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the sum of logits (K, H, W)."""
        return logits[self.kind][self.inside].sum()


def differences(predictor: Any, image: np.ndarray, layer: str | None, name: str) -> tuple[str, np.ndarray]:
    """Return the layer and the difference (H, W) of the two heats over the pixels that are predicted as a class."""
    from pytorch_grad_cam import GradCAM

    ours = explain.heat_map(predictor, image, name, layer)
    inside = predictor.predict(image).semantic == ours.class_index
    target_layer = explain.find_layer(predictor.model, ours.layer)
    with GradCAM(model=Logits(predictor.model), target_layers=[target_layer]) as peer:
        inputs = SeenImage.of(predictor, image).inputs()
        theirs = peer(input_tensor=inputs, targets=[Summed(ours.class_index, inside)])[0]
    return ours.layer, np.abs(theirs - ours.heat)


def main(words: list[str]) -> int:
    """Print the differences; 1 where one is more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("--layer", action="append")
    parser.add_argument("--class", dest="classes", action="append", help="default: the two largest predicted ones")
    given = parser.parse_args(words)
    predictor = segatlas.load(given.model, device="cpu")
    image = read_image(given.image)
    image = image[: image.shape[0] // MULTIPLE * MULTIPLE, : image.shape[1] // MULTIPLE * MULTIPLE]
    areas = predictor.predict(image).areas()
    largest = 0.0
    for layer in given.layer or [None]:
        for name in given.classes or sorted(areas, key=lambda one: -areas[one])[:2]:
            shown, apart = differences(predictor, image, layer, name)
            print(f"{shown:<32} {name:<20} largest difference {apart.max():.1e}, mean {apart.mean():.1e}")
            largest = max(largest, float(apart.max()))
    return int(largest > MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
