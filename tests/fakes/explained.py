"""Tiny networks of random weights, one of each type of output, as predictors to explain."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.checkpoint.card import Card
from segatlas.inference import Predictor
from segatlas.models.reading import load_architecture
from segatlas.palette import default_palette
from segatlas.structures import DetectedMasks

CLASSES = ("sky", "road", "car", "tree")
THINGS = (True, True, False, False)
SIZE = (60, 83)


@cache
def predictor(name: str, task: str = "semantic", **fields: Any) -> Predictor:
    torch.manual_seed(0)
    net = create_model(name, **{"num_classes": len(CLASSES), **load_architecture(name).tiny, **fields})
    facts: dict[str, Any] = {"task": task}
    if task == "panoptic":
        facts["things"] = THINGS
    return Predictor(net, make_card(net, classes=CLASSES, **facts), device="cpu")


class Finder(nn.Module):
    """Finds one car, of which a convolution says each pixel's mask logit; its box is the whole image."""

    score = 0.8

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 1, 1)

    def mask_logits(self, inputs: Tensor) -> Tensor:
        return self.head(self.encoder(inputs))[:, 0]

    def forward(self, inputs: Tensor) -> DetectedMasks:
        size = (inputs.shape[-2], inputs.shape[-1])
        return DetectedMasks(
            boxes=(torch.tensor([[0.0, 0.0, size[1], size[0]]]),),
            scores=(torch.tensor([self.score]),),
            labels=(torch.tensor([2]),),
            mask_logits=(self.mask_logits(inputs),),
            canvas=size,
        )


def finder() -> Predictor:
    card = Card(
        architecture="mask_rcnn",
        config={},
        task="instance",
        classes=CLASSES,
        palette=default_palette(len(CLASSES)),
    )
    return Predictor(Finder(), card, device="cpu")


def image(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
