"""Small networks to prune, in which every channel matters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.pruning.proof import redrawn

SMALL = {"encoder": {"name": "resnet18", "width": 16, "levels": 2}, "decoder_channels": (16, 8), "aux": True}
"""Fields of a U-Net of ten convolutions with sums, a map beside one that is tied to it, and a second head."""

CLASSES = ("ground", "disc", "ring")


def network(name: str = "unet", **fields: Any) -> nn.Module:
    """Make a network with weights by which all of its channels have an effect; by default that of `SMALL`."""
    torch.manual_seed(0)
    return redrawn(create_model(name, num_classes=len(CLASSES), **(fields or SMALL))).eval()
