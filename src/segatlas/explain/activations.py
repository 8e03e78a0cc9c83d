"""What a layer gives, and how it lies in the image: maps, channels first or last, and tokens of a grid.

Letters: N batch (1), C channels, h w the layer's map, L tokens, H' W' canvas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from segatlas.encoders.contract import EncoderBase, PyramidEncoder, TokenEncoder
from segatlas.errors import UsageError
from segatlas.structures import Output, QueryMasks

Size = tuple[int, int]
Form = Literal["channels first", "channels last", "tokens"]

STRIDES = (1, 2, 4, 8, 14, 16, 32, 64, 128)
"""Pixels between the tokens of a grid, besides the strides that the encoder says itself."""

FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)
LAST = (nn.LayerNorm, nn.Linear)
"""Kinds of layers whose channels come first, or last. Where an output may lie either way, what is made of one of the
kinds alone has its form. A kind that is made of LayerNorm, here or in timm, has its channels first."""


@dataclass(frozen=True, kw_only=True)
class LayerPlacement:
    """How a layer's output lies in the image. grid: (h, w). prefix: tokens before those of the grid.

    covered: (H, W) pixels of the network's input that the grid covers; a little more than the canvas where it was
    padded inside.
    """

    form: Form
    grid: Size
    covered: Size
    prefix: int = 0

    def as_map(self, values: Tensor) -> Tensor:
        """Return a layer's output, or its gradient, as (C, h, w)."""
        if self.form == "channels first":
            return values[0]
        if self.form == "channels last":
            return values[0].permute(2, 0, 1)
        return values[0, self.prefix :].T.unflatten(1, self.grid)


@dataclass(eq=False)
class Recorded:
    """What a layer gave in one pass: a tensor for each time that it ran, with its gradient to be asked for."""

    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(network: nn.Module, layer: nn.Module, name: str) -> Iterator[Recorded]:
    """Record what a layer gives while the network runs inside; gradients begin at the layer, not at the weights.

    Raises:
        UsageError: the layer gives something else than one tensor of numbers.
    """
    found = Recorded()

    def record(module: nn.Module, args: Any, output: Any) -> Any:
        tensor, put_back = _one_tensor(output, name)
        kept = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        found.outputs.append(kept)
        return put_back(kept.clone())  # what changes it in place does not change what is kept

    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hook = layer.register_forward_hook(record)
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield found
    finally:
        hook.remove()
        for parameter in wanted:
            parameter.requires_grad_()


def _one_tensor(output: Any, name: str) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Return the only tensor of numbers that a layer gives, and how another takes its place."""
    if isinstance(output, Tensor) and output.is_floating_point():
        return output, lambda other: other
    parts: list[Any] = []
    if isinstance(output, tuple | list):
        parts = list(output)
    elif isinstance(output, Mapping):
        parts = list(output.values())
    tensors = [one for one in parts if isinstance(one, Tensor) and one.is_floating_point()]
    if len(tensors) == 1 and type(output) in (tuple, list):
        place = next(index for index, one in enumerate(parts) if one is tensors[0])
        kind = type(output)
        return tensors[0], lambda other: kind([*parts[:place], other, *parts[place + 1 :]])
    what = f"{len(tensors)} tensors" if len(tensors) > 1 else f"a {type(output).__name__}"
    raise UsageError(f"layer: {name} gives {what}, expected one map; take one of the layers inside it")


def placement_of(
    shape: tuple[int, ...], network: nn.Module, layer: nn.Module, name: str, output: Output
) -> LayerPlacement:
    """Return how a layer's output of a shape lies in the image.

    Raises:
        UsageError: it has no place in the image, or its form cannot be told.
    """
    if len(shape) == 4 and shape[0] == 1:
        form = _form(shape, layer, output.canvas, name)
        grid = (shape[2], shape[3]) if form == "channels first" else (shape[1], shape[2])
        return LayerPlacement(form=form, grid=grid, covered=_covered(grid, output.canvas))
    if len(shape) == 3 and shape[0] == 1:
        return _tokens(shape[1], network, name, output)
    told = f"layer: {name} gives a tensor of shape {tuple(shape)}"
    raise UsageError(f"{told}, which has no place in the image; take the layer around it, or another one")


def _form(shape: tuple[int, ...], layer: nn.Module, canvas: Size, name: str) -> Form:
    """Return the form of four-dimensional outputs: by the sides, else by what the layer is made of."""
    fits_first, fits_last = _fits(shape[2:], canvas), _fits(shape[1:3], canvas)
    if fits_first != fits_last:
        return "channels first" if fits_first else "channels last"
    told = f"layer: {name} gives a tensor of shape {shape}"
    if not fits_first:
        raise UsageError(f"{told}, which covers no grid over {canvas[1]} x {canvas[0]} pixels; take another layer")
    forms = {_form_of_kind(layer)} - {None} or {_form_of_kind(one) for one in layer.modules()} - {None}
    if len(forms) > 1:
        raise UsageError(
            f"{told}, whose channels may be first or last; an image of other sides tells, or a layer inside it"
        )
    return next((form for form in forms if form), "channels first")


def _form_of_kind(layer: nn.Module) -> Form | None:
    """Return the form that a single layer's kind tells; None where it tells none."""
    if isinstance(layer, FIRST) or (isinstance(layer, nn.LayerNorm) and type(layer) is not nn.LayerNorm):
        return "channels first"
    return "channels last" if isinstance(layer, LAST) else None


def _fits(grid: tuple[int, ...], canvas: Size) -> bool:
    """Tell whether a grid may cover a canvas: its cells are about squares. Of one cell a side may have any part."""
    low = max(side / (cells + 1) for side, cells in zip(canvas, grid, strict=True))
    high = min(side / (cells - 1) if cells > 1 else math.inf for side, cells in zip(canvas, grid, strict=True))
    return low < high


def _covered(grid: Size, canvas: Size) -> Size:
    """Return the pixels that a grid covers: those of its stride, where it is one of whole pixels, else the canvas."""
    for stride in STRIDES:
        if all(-(-side // stride) == cells for side, cells in zip(canvas, grid, strict=True)):
            return grid[0] * stride, grid[1] * stride
    return canvas


def _tokens(count: int, network: nn.Module, name: str, output: Output) -> LayerPlacement:
    """Return where tokens lie: those of the grid are the last, as in the encoders here."""
    queries = output.class_logits.shape[1] if isinstance(output, QueryMasks) else 0
    encoder = _encoder_around(network, name)
    strides, prefixes = set(STRIDES), {0}
    if isinstance(encoder, TokenEncoder):
        strides = {encoder.patch_size}
        prefixes = {encoder.prefix_tokens, encoder.prefix_tokens + queries}
    elif isinstance(encoder, PyramidEncoder):
        strides = set(encoder.strides) | {2, 4, 8, 16, 32}
    found = {}
    for stride in strides:
        grid = (-(-output.canvas[0] // stride), -(-output.canvas[1] // stride))
        for prefix in prefixes:
            if grid[0] * grid[1] + prefix == count:
                found[grid, prefix] = stride
    if len(found) != 1 or (count == queries and not isinstance(encoder, TokenEncoder)):
        what = "queries" if count == queries else "tokens"
        raise UsageError(
            f"layer: {name} gives {count} {what}, which are no grid over {output.canvas[1]} x {output.canvas[0]} "
            "pixels; take a layer that gives a map"
        )
    ((grid, prefix), stride) = next(iter(found.items()))
    return LayerPlacement(form="tokens", grid=grid, covered=(grid[0] * stride, grid[1] * stride), prefix=prefix)


def _encoder_around(network: nn.Module, name: str) -> EncoderBase | None:
    """Return the innermost encoder that a layer is in."""
    parts = name.split(".")
    around = (network.get_submodule(".".join(parts[:count])) for count in range(len(parts), 0, -1))
    return next((one for one in around if isinstance(one, EncoderBase)), None)


def usual_layers(network: nn.Module) -> list[str]:
    """Return the layers that come into question where none is named, the likeliest first.

    These are the encoder's last stage, then what is in it from the end: a stage that only holds others never runs.

    Raises:
        UsageError: the network has no encoder that says what its stages are.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, EncoderBase):
        raise UsageError("layer: which one? this network has no encoder; `segatlas explain layers MODEL` lists them")
    stage = encoder.stages()[-1]
    parts = stage[:1] if isinstance(encoder, TokenEncoder) else stage[::-1]
    inside = [one for part in parts for one in (part, *reversed([*part.modules()][1:]))]
    names = {module: name for name, module in network.named_modules()}
    return [names[one] for one in dict.fromkeys(inside) if one in names]
