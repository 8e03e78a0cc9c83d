"""Small networks to prune, in which every channel matters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.pruning.proof import redrawn

CLASSES = ("ground", "disc", "ring")


def network(name: str = "unet", **fields: Any) -> nn.Module:
    """Make a network with weights by which all of its channels have an effect; by default a plain U-Net of width 8."""
    torch.manual_seed(0)
    fields = fields or {"width": 8, "aux": True}
    return redrawn(create_model(name, num_classes=len(CLASSES), **fields)).eval()
