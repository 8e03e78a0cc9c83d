"""What goes into a network: one image, further sources on the same pixels, and which of them are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from segatlas.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from segatlas.structures.targets import Target

SourceKind: TypeAlias = Literal["image", "map", "label"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input of a network: the image itself, or a further source on the same pixels.

    kind: "image" has the image's form and channels, and is normalised as the image is. "map": numbers with a
        meaning of their own, such as heights: they reach the network as stored, float32. Both are interpolated where
        they are resized, and padded with 0. "label" are codes (H, W) uint8: nearest value, padded with 255.
    channels: of kind "image" the image's; 1 of kind "label".
    required: False = the network copes where it is missing, see `Inputs.present`.
    codes: of kind "label", how many there are: 0..codes-1 and 255, others are refused where a source is read. None =
        any.
    """

    name: str = "image"
    kind: SourceKind = "image"
    channels: int = 3
    required: bool = True
    codes: int | None = None


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

    def given(self) -> Tensor | Inputs:
        """Return the image alone where there are no sources: then a network that takes a tensor serves, too."""
        return self if self.sources else self.image

    def to(self, device: torch.device | str) -> Inputs:
        """Return all of it on a device."""
        moved = self.changed(lambda tensor: tensor.to(device))
        return moved._replace(present={name: flags.to(device) for name, flags in self.present.items()})


def image_of(inputs: Tensor | Inputs) -> Tensor:
    """Return the image (N, C, H, W) of what a network was given: a plain tensor is taken for it."""
    return inputs.image if isinstance(inputs, Inputs) else inputs


def changed(inputs: Tensor | Inputs, change: Callable[[Tensor], Tensor]) -> Tensor | Inputs:
    """Return what a network was given with image and sources as `change` makes them, each alone."""
    return inputs.changed(change) if isinstance(inputs, Inputs) else change(inputs)


def samples_of(inputs: Tensor | Inputs, chosen: slice) -> Tensor | Inputs:
    """Return some samples of a batch as a batch of their own, their flags included."""
    taken = changed(inputs, lambda tensor: tensor[chosen])
    if not isinstance(taken, Inputs):
        return taken
    return taken._replace(present={name: flags[chosen] for name, flags in taken.present.items()})


def joined(parts: Sequence[Tensor | Inputs]) -> Tensor | Inputs:
    """Return several batches of one size as one; a single one as it is."""
    import torch

    first = parts[0]
    if len(parts) == 1:
        return first
    if not isinstance(first, Inputs):
        return torch.cat([image_of(part) for part in parts])
    inputs = [part for part in parts if isinstance(part, Inputs)]
    return Inputs(
        torch.cat([part.image for part in inputs]),
        {name: torch.cat([part.sources[name] for part in inputs]) for name in first.sources},
        {name: torch.cat([part.present[name] for part in inputs]) for name in first.present},
    )


def source_of(inputs: Tensor | Inputs, name: str) -> Tensor:
    """Return a source that the network cannot do without. UsageError where it was not given."""
    if isinstance(inputs, Inputs) and name in inputs.sources:
        return inputs.sources[name]
    raise UsageError(f"the network needs the source {name!r} besides the image: Inputs(image, {{{name!r}: tensor}})")


def noise_inputs(
    specs: Sequence[InputSpec], size: tuple[int, int], *, count: int = 1, seed: int = 0, device: str = "cpu"
) -> Inputs:
    """Return what a network could be given: normal noise, codes of 0, every source present.

    Args:
        specs: what it takes, the image first.
        size: (height, width).
        count: samples.
        seed: of the noise.
        device: where the tensors lie; "meta" for shapes alone.
    """
    import torch

    generator = None if device == "meta" else torch.Generator().manual_seed(seed)

    def made(spec: InputSpec) -> Tensor:
        if spec.kind == "label":
            return torch.zeros(count, *size, dtype=torch.uint8, device=device)
        return torch.randn(count, spec.channels, *size, generator=generator, device=device)

    image, *further = map(made, specs)
    sources = {spec.name: tensor for spec, tensor in zip(specs[1:], further, strict=True)}
    present = {spec.name: torch.ones(count, dtype=torch.bool, device=device) for spec in specs if not spec.required}
    return Inputs(image, sources, present)


class Batch(NamedTuple):
    """Collated samples.

    inputs: image (N, C, H, W) float32, normalised, channels last in memory, and sources likewise.
    targets: for `SemanticTarget` the labels of all samples as one tensor, (N, H', W') uint8, 0..K-1 or 255, which is
        what losses read at once; else one target a sample, its arrays of the size of the batch.
    sizes: (height, width) of each image before it was padded to the batch.
    keys: name of each sample.
    annotated, present: (N, K) bool, of labels that say less than a class for each pixel, see `SemanticTarget`; None
        where no sample has such. A sample without has all classes annotated, and the classes that its labels show.
    padding: (N, H, W) bool, beyond the images; None = nothing is.
    """

    inputs: Inputs
    targets: Tensor | tuple[Target, ...]
    sizes: tuple[tuple[int, int], ...]
    keys: tuple[str, ...]
    annotated: Tensor | None = None
    present: Tensor | None = None
    padding: Tensor | None = None

    @property
    def valid(self) -> Tensor:
        """(N, H, W) bool, which pixels are no padding."""
        image = self.inputs.image
        if self.padding is not None:
            return ~self.padding
        return image.new_ones((len(image), *image.shape[-2:])).bool()


class Surroundings(NamedTuple):
    """What stands around labels and logits, for losses that read more than these.

    image: (N, C, H, W) float, normalised as the network takes it. mean, std: (C,) what it was normalised with, so that
        image * std + mean is 0..1. valid: (N, H, W) bool, False in padding.
    annotated, present: as in `Batch`.
    progress: how much of the training is done, 0..1.
    """

    image: Tensor
    valid: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    annotated: Tensor | None = None
    present: Tensor | None = None
    progress: float = 1.0

    @property
    def plain(self) -> Tensor:
        """The image in 0..1, float32."""
        shape = (1, -1, 1, 1)
        std, mean = (self.image.new_tensor(values).float().reshape(shape) for values in (self.std, self.mean))
        return self.image.float() * std + mean


class WithSurroundings(NamedTuple):
    """What a loss takes that reads more than logits and labels.

    part: what the term is on, a map of logits or a network's whole output. around: see `Surroundings`.
    """

    part: Any
    around: Surroundings
