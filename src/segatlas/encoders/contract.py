"""What a decoder may expect of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segatlas.renamed import old_attribute

Maps = TypeVar("Maps", Tensor, list[Tensor])
"""What a stage maps to its like: one map, or those of several branches."""


class Encoder(nn.Module, ABC):
    """Turns an image into feature maps, finest first.

    channels[i] and strides[i] describe the i-th map of `forward`; map i is (N, channels[i], ceil(H/s), ceil(W/s)) or
    the encoder's own rounding for an H x W image. Encoders never read files: `segatlas.build` loads weights.

    Height and width of an image must be multiples of `size_divisibility`; decoders pad to it.
    With `gradient_checkpointing` set, training keeps only the maps between stages and recomputes the rest in backward.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    size_divisibility: int = 1
    gradient_checkpointing: bool = False

    multiple = old_attribute("multiple", "size_divisibility")

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to feature maps, finest first."""

    @abstractmethod
    def stages(self) -> list[list[nn.Module]]:
        """Return the modules in depth order (stem first), for layer-wise learning rates and freezing."""

    def run_stage(self, stage: Callable[[Maps], Maps], x: Maps) -> Maps:
        """Apply one stage to x, through checkpointing where that is on; the numbers are the same either way."""
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return stage(x)
        out: Maps = checkpoint(stage, x, use_reentrant=False, context_fn=self._checkpoint_contexts)
        return out

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._frozen_statistics()

    @contextmanager
    def _frozen_statistics(self) -> Iterator[None]:
        """Keep the recomputation from counting its batch a second time in the running statistics of batch norm."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
        counters = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        try:
            for norm in norms:
                norm.momentum, norm.num_batches_tracked = 0.0, None
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, counters, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches
