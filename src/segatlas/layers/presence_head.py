"""The small head that tells which classes an image shows, trained beside a map of classes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Pooling = Literal["avg", "max"]


class PresenceHead(nn.Module):
    """Global pooling, dropout, a fully connected layer.

    Args:
        in_channels: of the map.
        num_classes: P, one logit each.
        pooling: the average of the map, or its largest values.
        dropout: fraction of the pooled values dropped while training.
    """

    def __init__(self, in_channels: int, num_classes: int, *, pooling: Pooling = "avg", dropout: float = 0.2):
        super().__init__()
        self.pool = F.adaptive_avg_pool2d if pooling == "avg" else F.adaptive_max_pool2d
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to logits (N, P)."""
        out: Tensor = self.linear(self.dropout(self.pool(x, 1).flatten(1)))
        return out
