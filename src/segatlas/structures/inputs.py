"""What goes into a network: one image, further sources on the same pixels, and which of them are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """What a network takes.

    image: (N, C, H, W) float, normalised as the card says.
    sources: further arrays on the same pixels by name, such as an image of another date: (N, C', H, W) float, or
        (N, H, W) class indices.
    present: (N,) bool by a source's name, which samples have it; a name that is missing here is present in all. What
        stands in a source where it is not present means nothing.
    """

    image: Tensor
    sources: Mapping[str, Tensor] = {}
    present: Mapping[str, Tensor] = {}


def image_of(inputs: Tensor | Inputs) -> Tensor:
    """Return the image (N, C, H, W) of what a network was given: a plain tensor is taken for it."""
    return inputs.image if isinstance(inputs, Inputs) else inputs


class Batch(NamedTuple):
    """Collated samples. images: (N, C, H, W) float, normalised; labels: (N, H, W) uint8, 0..K-1 or 255."""

    images: Tensor
    labels: Tensor
    keys: list[str]
    sources: dict[str, Tensor] = {}
