"""Receptive fields of layers in a row, from kernel, stride, padding and dilation alone.

The arithmetic of Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks",
https://distill.pub/2019/computing-receptive-fields: a layer adds (kernel - 1) * dilation steps of what came before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from segatlas.errors import UsageError

NAMES = ("kernel", "stride", "padding", "dilation")
DEFAULTS = (1, 1, 0, 1)
LEAST = (1, 1, 0, 1)

Sides = int | tuple[int, int]
"""One number for rows and columns, or (rows, columns)."""


@dataclass(frozen=True, kw_only=True)
class ChainField:
    """The field behind one layer of a chain, (rows, columns) each.

    kernel, stride, padding, dilation: of the layer. size: of the field, in pixels. jump: pixels between the middles of
    neighbouring fields. start: the middle of the first field; the middle of the first pixel is at 0.5.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]
    jump: tuple[int, int]
    start: tuple[Fraction, Fraction]


def chain_fields(layers: Iterable[Iterable[Sides]]) -> tuple[ChainField, ...]:
    """Return the field behind each layer of a row of convolutions or poolings.

    Args:
        layers: (kernel, stride, padding, dilation) each; what is left out at the end is 1, 0 and 1.

    Raises:
        UsageError: no layer, more than four numbers, or one that is too small.
    """
    size, jump, start = [1, 1], [1, 1], [Fraction(1, 2), Fraction(1, 2)]
    found = []
    for number, layer in enumerate(layers, start=1):
        parts = [_both(part) for part in layer]
        if not 1 <= len(parts) <= len(NAMES):
            raise UsageError(f"layer {number}: got {len(parts)} numbers, expected {', '.join(NAMES)}")
        parts += [(default, default) for default in DEFAULTS[len(parts) :]]
        for name, least, sides in zip(NAMES, LEAST, parts, strict=True):
            if min(sides) < least:
                raise UsageError(f"layer {number}: {name} is {min(sides)}, expected at least {least}")
        kernel, stride, padding, dilation = parts
        for axis in range(2):
            reach = (kernel[axis] - 1) * dilation[axis]
            start[axis] += (Fraction(reach, 2) - padding[axis]) * jump[axis]
            size[axis] += reach * jump[axis]
            jump[axis] *= stride[axis]
        found.append(
            ChainField(
                kernel=kernel,
                stride=stride,
                padding=padding,
                dilation=dilation,
                size=(size[0], size[1]),
                jump=(jump[0], jump[1]),
                start=(start[0], start[1]),
            )
        )
    if not found:
        raise UsageError("expected at least one layer: its kernel, stride, padding and dilation")
    return tuple(found)


def parse_layer(word: str) -> tuple[Sides, ...]:
    """Return "3,2,1" as (3, 2, 1) and "1x5,1x2" as ((1, 5), (1, 2)): height first. UsageError for anything else."""
    found: list[Sides] = []
    for part in word.split(","):
        sides = part.strip().lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            raise UsageError(
                f"{word!r}: expected {','.join(name.upper() for name in NAMES)}, whole numbers or HxW, such as 3,2,1"
            )
        found.append(int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1])))
    return tuple(found)


def _both(part: Sides) -> tuple[int, int]:
    return (part, part) if isinstance(part, int) else (part[0], part[1])
