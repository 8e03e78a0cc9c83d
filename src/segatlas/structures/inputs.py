"""What goes into a network: one image, further sources on the same pixels, and which of them are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from segatlas.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from segatlas.structures.targets import Target

SourceKind: TypeAlias = Literal["image", "values", "label"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a network: the image itself, or a further source on the same pixels.

    kind: "image" has the image's form and channels, and is normalised as the image is. "values" are numbers with a
        meaning of their own, such as heights: they reach the network as stored, float32. Both are interpolated where
        they are resized, and padded with 0. "label" are codes (H, W) uint8: nearest value, padded with 255.
    channels: of kind "image" the image's; 1 of kind "label".
    required: False = the network copes where it is missing, see `Inputs.present`.
    """

    name: str = "image"
    kind: SourceKind = "image"
    channels: int = 3
    required: bool = True


class Inputs(NamedTuple):
    """What a network takes.

    image: (N, C, H, W) float, normalised as the card says.
    sources: further arrays on the same pixels by name, such as an image of another date: (N, C', H, W) float, or
        (N, H, W) uint8 codes, 255 = ignore.
    present: (N,) bool by a source's name, which samples have it; a name that is missing here is present in all. What
        stands in a source where it is not present means nothing.
    """

    image: Tensor
    sources: Mapping[str, Tensor] = {}
    present: Mapping[str, Tensor] = {}

    def changed(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Return image and sources as `change` makes them, each alone; the flags stay."""
        return Inputs(change(self.image), {name: change(source) for name, source in self.sources.items()}, self.present)

    def to(self, device: torch.device | str) -> Inputs:
        """Return all of it on a device."""
        moved = self.changed(lambda tensor: tensor.to(device))
        return moved._replace(present={name: flags.to(device) for name, flags in self.present.items()})


def image_of(inputs: Tensor | Inputs) -> Tensor:
    """Return the image (N, C, H, W) of what a network was given: a plain tensor is taken for it."""
    return inputs.image if isinstance(inputs, Inputs) else inputs


def source_of(inputs: Tensor | Inputs, name: str) -> Tensor:
    """Return a source that the network cannot do without. UsageError where it was not given."""
    if isinstance(inputs, Inputs) and name in inputs.sources:
        return inputs.sources[name]
    raise UsageError(f"the network needs the source {name!r} besides the image: Inputs(image, {{{name!r}: tensor}})")


class Batch(NamedTuple):
    """Collated samples.

    inputs: image (N, C, H, W) float32, normalised, channels last in memory, and sources likewise.
    targets: for `SemanticTarget` the labels of all samples as one tensor, (N, H', W') uint8, 0..K-1 or 255, which is
        what losses read at once; else one target a sample, its arrays of the size of the batch.
    sizes: (height, width) of each image before it was padded to the batch.
    keys: name of each sample.
    """

    inputs: Inputs
    targets: Tensor | tuple[Target, ...]
    sizes: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]
