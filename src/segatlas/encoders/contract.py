"""What a decoder may expect of an encoder: feature maps of several strides, or the tokens of a plain transformer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segatlas.errors import UsageError
from segatlas.renamed import old_attribute, old_names

__getattr__ = old_names(__name__)

Maps = TypeVar("Maps", Tensor, list[Tensor])
"""What a stage maps to its like: one map, or those of several branches."""


class EncoderBase(nn.Module, ABC):
    """What encoders of either kind have in common.

    Height and width of an image must be multiples of `size_divisibility`; decoders pad to it.
    With `gradient_checkpointing` set, training keeps only what is between stages and recomputes the rest in backward.
    Encoders never read files: `segatlas.build` loads weights.
    """

    size_divisibility: int = 1
    gradient_checkpointing: bool = False

    multiple = old_attribute("multiple", "size_divisibility")

    @property
    def pretrained(self) -> nn.Module:
        """The part that published weights are for: all of it, unless it is made around another encoder."""
        return self

    @abstractmethod
    def stages(self) -> list[list[nn.Module]]:
        """Return the modules in depth order (stem first), for layer-wise learning rates and freezing."""

    def outside_stages(self) -> list[nn.Module]:
        """Return the modules in none of the stages: they train at the encoder's learning rate, without decay."""
        return []

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


class PyramidEncoder(EncoderBase):
    """Turns an image into feature maps, finest first.

    channels[i] and strides[i] describe the i-th map of `forward`; map i is (N, channels[i], ceil(H/s), ceil(W/s)) or
    the encoder's own rounding for an H x W image. `extras` names what `outputs` gives besides the maps.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    extras: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to feature maps, finest first."""

    def outputs(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Map an image (N, C, H, W) to the maps of `forward` and to further tensors by the names in `extras`."""
        return self(x), {}


class SequentialEncoder(PyramidEncoder):
    """A pyramid whose layers stand in one sequence, `features`; a map is given out before each index of `ends`."""

    features: nn.Sequential
    ends: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at `strides`."""
        maps = []
        for stage in self._parts():
            x = self.run_stage(stage, x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers between the maps."""
        return [list(part) for part in self._parts()]

    def _parts(self) -> list[nn.Sequential]:
        return [self.features[start:end] for start, end in pairwise((0, *self.ends))]


class Tokens(NamedTuple):
    """What chosen blocks of a plain transformer give, in the order in which they were asked for.

    patches: (N, h * w, D) for each block, the patches of the image row by row.
    prefix: (N, P, D) for each block, the tokens before them: class token, then registers or a distilled token.
    grid: (h, w), patches in height and width.
    """

    patches: tuple[Tensor, ...]
    prefix: tuple[Tensor, ...]
    grid: tuple[int, int]

    def maps(self) -> list[Tensor]:
        """Return the patches of each block as a map (N, D, h, w), channels-last in memory."""
        return [patches.transpose(1, 2).unflatten(2, self.grid) for patches in self.patches]


class TokenEncoder(EncoderBase):
    """Turns an image into the tokens of a plain transformer, all blocks at one stride.

    width is D, the channels of a token; patch_size the pixels a patch is high and wide, the stride of the maps;
    prefix_tokens is P, see `Tokens`. Position embeddings are resized to the grid of each image.
    """

    width: int
    patch_size: int
    prefix_tokens: int

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's blocks, in order."""

    @abstractmethod
    def forward(self, x: Tensor, at: Sequence[int] = (-1,), *, norm: bool = True) -> Tokens:
        """Map an image (N, C, H, W) to the tokens after the blocks `at`; no block after the last of them is run.

        Args:
            x: image whose height and width are multiples of the patch size.
            at: indices of blocks, negative ones counted from the last.
            norm: apply the encoder's final norm, where it has one, to the tokens of each.
        """

    def block_indices(self, at: Sequence[int]) -> list[int]:
        """Return indices of blocks without negative ones.

        Raises:
            UsageError: there is no such block.
        """
        depth = len(self.blocks)
        missing = [index for index in at if not -depth <= index < depth]
        if missing:
            raise UsageError(f"the encoder has {depth} blocks, and no block {missing[0]}")
        return [index % depth for index in at]
