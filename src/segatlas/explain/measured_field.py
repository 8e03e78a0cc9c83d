"""The effective receptive field: how much each pixel of an image moves one value of a layer, measured by gradients.

Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
https://arxiv.org/abs/1701.04128: the gradient of the value in the middle of a map with respect to the image, its size
averaged over inputs. Nearly all of it lies in a small part of the theoretical field, which is drawn over it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segatlas.checkpoint.card import Card
from segatlas.errors import UsageError
from segatlas.explain.dependence import Trace, Traced, ValueNeededError
from segatlas.explain.dependence_rules import KNOWN
from segatlas.explain.layers import find_layer
from segatlas.explain.theoretical_field import traced_output, unit_box
from segatlas.inference.images import GivenImage, ImageBatch, WithSources, prepare
from segatlas.structures import Inputs, InputSpec, maps_of, noise_inputs

MASS = 0.95
"""Fraction of the gradient that the printed square holds."""

FAINT = 0.0455
"""Pixels with less than this fraction of the largest gradient are outside the effective field of Luo et al.: two
standard deviations of a Gaussian.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectiveField:
    """What was measured of one value of a layer.

    gradient: (H, W) float64, mean size of the gradient, the largest is 1. unit: row and column of the value in its map.
    layer: its name, "" = the network's output. box: theoretical field, (top, left, bottom, right), None = not known.
    count: inputs. whole: the box is the whole image.
    """

    gradient: np.ndarray
    unit: tuple[int, int]
    layer: str
    box: tuple[int, int, int, int] | None
    count: int

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column where the gradient is balanced; the middle of the first pixel is at 0.5."""
        total = self.gradient.sum()
        return tuple(  # type: ignore[return-value]
            float((self.gradient.sum(1 - axis) * (np.arange(self.gradient.shape[axis]) + 0.5)).sum() / total)
            for axis in range(2)
        )

    @property
    def square(self) -> tuple[int, int, int, int]:
        """The smallest square around the centre that holds MASS of the gradient: top, left, bottom, right."""
        row, column = (int(place) for place in self.centre)
        height, width = self.gradient.shape
        away = np.maximum(np.abs(np.arange(height) - row)[:, None], np.abs(np.arange(width) - column))
        mass = np.bincount(away.ravel(), weights=self.gradient.ravel())
        reach = int(np.searchsorted(mass.cumsum(), MASS * mass.sum()))
        top, left = max(row - reach, 0), max(column - reach, 0)
        return top, left, min(row + reach + 1, height), min(column + reach + 1, width)

    @property
    def side(self) -> float:
        """Side of a square of as many pixels as have at least FAINT of the largest gradient."""
        return math.sqrt(int((self.gradient >= FAINT).sum()))

    @property
    def of_box(self) -> float | None:
        """The last as a fraction of the side of a square as large as the theoretical field."""
        if self.box is None:
            return None
        top, left, bottom, right = self.box
        area = (bottom - top) * (right - left)
        return self.side / math.sqrt(area) if area else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "layer": self.layer,
            "size": list(self.gradient.shape),
            "unit": list(self.unit),
            "inputs": self.count,
            "theoretical_box": None if self.box is None else list(self.box),
            "box_of_95_percent": list(self.square),
            "side": self.side,
            "of_theoretical": self.of_box,
        }


def effective_field(
    network: nn.Module,
    *,
    layer: str = "",
    size: tuple[int, int] = (256, 256),
    count: int = 8,
    seed: int = 0,
    images: Sequence[Tensor] = (),
    inputs: Sequence[InputSpec] = (),
) -> EffectiveField:
    """Measure the effective field of the value in the middle of a layer's map.

    Channels are added up with signs drawn for each input, so that none hides another.

    Args:
        network: any; it is run as in prediction.
        layer: its name; "" = the network's output, the first of its maps.
        size: (H, W) of the inputs.
        count: inputs of normal noise, where no images are given.
        seed: of noise and signs.
        images: normalised images (C, H, W) of that size in place of noise.
        inputs: what the network takes, the image first; default: one image.

    Raises:
        UsageError: no such layer, it gives no map, no gradient reaches the image, or size or count is too small.
    """
    if min(size) < 1 or count < 1:
        raise UsageError(f"effective field: got size {size} and {count} inputs, expected at least 1 of each")
    if layer:
        find_layer(network, layer)
    config = getattr(network, "config", None)
    specs = tuple(inputs) or (InputSpec(channels=getattr(config, "in_channels", 3)),)
    for number, one in enumerate(images):
        if tuple(one.shape) != (specs[0].channels, *size):
            raise UsageError(f"image {number}: got {tuple(one.shape)}, expected {(specs[0].channels, *size)}")
    generator = torch.Generator().manual_seed(seed)
    total, unit, used = torch.zeros(size, dtype=torch.float64), (0, 0), 0
    was_training = network.training
    network.eval()
    try:
        for given in _given(specs, size, count, seed, images):
            image = given.image.requires_grad_()
            found = _map_of(network, layer, given.given())
            unit = (found.shape[2] // 2, found.shape[3] // 2)
            signs = torch.randn(found.shape[1], generator=generator).to(found)
            (gradient,) = torch.autograd.grad((found[0, :, unit[0], unit[1]] * signs).sum(), image)
            total += gradient[0].detach().double().abs().sum(0)
            used += 1
    finally:
        network.train(was_training)
    if not float(total.max()) > 0:
        raise UsageError(f"layer {layer or 'output'}: no gradient reaches the image")
    box = _theoretical(network, layer, size, specs, unit)
    return EffectiveField(gradient=(total / total.max()).numpy(), unit=unit, layer=layer, box=box, count=used)


def normalised_image(image: GivenImage, card: Card) -> Tensor:
    """Return an image (C, H, W) as the network gets it. DataError where it cannot be read or does not fit."""
    if len(card.inputs) > 1 and not isinstance(image, WithSources):
        card = replace(card, inputs=card.inputs[:1])
    given = ImageBatch([prepare(image, card)], torch.device("cpu")).whole()
    return (given.image if isinstance(given, Inputs) else given)[0]


def middle_part(image: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Return the middle (C, *size) of an image (C, H, W). UsageError, with its name, where it is smaller."""
    height, width = image.shape[1:]
    if height < size[0] or width < size[1]:
        raise UsageError(f"{name}: is {height} x {width} for the network, expected at least {size[0]} x {size[1]}")
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def _given(
    specs: Sequence[InputSpec], size: tuple[int, int], count: int, seed: int, images: Sequence[Tensor]
) -> Iterator[Inputs]:
    for number in range(len(images) or count):
        noise = noise_inputs(specs, size, seed=seed + number)
        yield noise._replace(image=images[number][None].clone()) if images else noise


def _map_of(network: nn.Module, layer: str, given: Any) -> Tensor:
    """Return the map (N, C, h, w) that a layer gives in its first run."""
    caught: list[Any] = []
    if not layer:
        caught.append(network(given))
    else:
        handle = find_layer(network, layer).register_forward_hook(lambda module, args, output: caught.append(output))
        try:
            network(given)
        finally:
            handle.remove()
    if not caught:
        raise UsageError(f"layer: {layer!r} does not run in a prediction")
    found = _first_map(caught[0])
    if found is None or found.ndim != 4 or not found.is_floating_point() or not found.requires_grad:
        what = f"{tuple(found.shape)}" if found is not None else type(caught[0]).__name__
        raise UsageError(
            f"layer {layer or 'output'}: it gives {what}, expected a map (N, C, h, w); name a layer that gives one"
        )
    return found


def _first_map(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "_asdict"):
        return next(iter(maps_of(output).values()), None)
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return next((found for one in output if (found := _first_map(one)) is not None), None)
    return None


def _theoretical(
    network: nn.Module, layer: str, size: tuple[int, int], specs: Sequence[InputSpec], unit: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    trace = Trace.of(network, KNOWN)
    caught: list[Any] = []
    handle = None
    if layer:
        handle = find_layer(network, layer).register_forward_hook(lambda module, args, output: caught.append(output))
    try:
        output = traced_output(network, size, inputs=specs, trace=trace)
        caught.append(output)
    except (ValueNeededError, RuntimeError):
        pass
    finally:
        if handle is not None:
            handle.remove()
    found = _first_map(caught[0]) if caught else None
    return unit_box(found, *unit) if isinstance(found, Traced) else None
