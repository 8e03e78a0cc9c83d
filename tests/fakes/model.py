"""A tiny network with random weights as a model folder."""

from __future__ import annotations

from pathlib import Path

import torch

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained

CLASSES = ("sky", "road", "car")


def make_model(folder: Path, classes: tuple[str, ...] = CLASSES, **fields: object) -> Path:
    torch.manual_seed(0)
    net = create_model("unet", **{"num_classes": len(classes), "width": 4, **fields})
    return save_pretrained(net, folder, classes=classes)
