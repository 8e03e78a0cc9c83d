"""Exponential moving average of the weights, on Lightning's averaging callback."""

from __future__ import annotations

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from segatlas.config.schema import EmaConfig


class Ema(WeightAveraging):
    """Keeps averaged weights, validates with them and stores both sets in checkpoints."""

    def __init__(self, config: EmaConfig):
        def average(averaged: Tensor, current: Tensor, updates: Tensor) -> Tensor:
            decay = config.decay
            if config.warmup:
                decay = min(decay, (1 + float(updates)) / (10 + float(updates)))
            if not averaged.is_floating_point():
                return current
            return averaged.lerp(current, 1 - decay)

        super().__init__(use_buffers=True, avg_fn=average)
