"""Which pixels of an image a tensor's values depend on: intervals of rows or columns, one for each value.

For one axis of the image a `Span` holds, for each value of a tensor, the first and the last row (or column) that it may
depend on. A dimension along which both are constant has size 1 there, whatever the tensor's own size is: maps of
millions of values are then a few thousand numbers. What depends on two things has two spans, and they are put together
only where that makes none larger: a matrix of all pairs of pixels stays two vectors.

The hull of a union is exact: the least of first rows, the largest of last ones, over what is really taken in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

NONE_LOW, NONE_HIGH = 1 << 30, -(1 << 30)
"""Ends of the interval of a value that depends on no pixel."""

MOST_VALUES = 1 << 26
"""Numbers that a span may be written out to."""


class TooLargeError(Exception):
    """A span would need more than MOST_VALUES numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """Intervals along one axis of the image.

    low, high: int32 of the tensor's rank; each dimension has the tensor's size or 1. whole: what made all values depend
    on the whole axis at once, "" = nothing did. grows: what made the interval a fraction of the image, likewise.
    """

    low: Tensor
    high: Tensor
    whole: str = ""
    grows: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of `low` and `high`."""
        return tuple(self.low.shape)

    def change(self, low: Callable[[Tensor], Tensor], high: Callable[[Tensor], Tensor] | None = None) -> Span:
        """Return it with both ends changed, alike where there is one function."""
        return replace(self, low=low(self.low), high=(high or low)(self.high))

    def varies(self) -> bool:
        """Tell whether it has more than one interval."""
        return self.low.numel() > 1


Spans = tuple[Span, ...]
"""Of a tensor, for one axis: it depends on all of them. None at all: on no pixel."""


def merged(spans: Iterable[Span]) -> Spans:
    """Return the same spans, those put together where the result is no larger than one of the two."""
    found: list[Span] = []
    for span in spans:
        for place, other in enumerate(found):
            together = torch.broadcast_shapes(span.low.shape, other.low.shape)
            if together in (span.low.shape, other.low.shape):
                found[place] = union(span, other)
                break
        else:
            found.append(span)
    return tuple(found)


def union(one: Span, other: Span) -> Span:
    """Return the hull of two spans, value by value."""
    return Span(
        low=torch.minimum(one.low, other.low),
        high=torch.maximum(one.high, other.high),
        whole=one.whole or other.whole,
        grows=one.grows or other.grows,
    )


def aligned(span: Span, rank: int) -> Span:
    """Return it with as many dimensions, new ones in front, as broadcasting has it."""
    missing = rank - span.low.ndim
    return span.change(lambda end: end.reshape(*(1,) * missing, *end.shape)) if missing else span


def reduced(span: Span, dims: Sequence[int], *, keep: bool, by: str = "") -> Span:
    """Return the hull over some dimensions.

    Args:
        span: any.
        dims: of the tensor; negative ones count from the end.
        keep: leave a dimension of size 1 for each.
        by: what does it: noted where nothing varies any more after it.
    """
    dims = sorted({dim % span.low.ndim for dim in dims}) if span.low.ndim else []
    if not dims:
        return span
    found = span.change(lambda end: end.amin(dims, keepdim=keep), lambda end: end.amax(dims, keepdim=keep))
    is_whole = bool(by) and span.varies() and not found.varies() and any(span.low.shape[dim] > 1 for dim in dims)
    return replace(found, whole=found.whole or by) if is_whole else found


def written_out(span: Span, shape: Sequence[int], dims: Iterable[int]) -> Span:
    """Return it with the tensor's own size in some dimensions."""
    wanted = [shape[dim] if dim in set(dims) else size for dim, size in enumerate(span.low.shape)]
    if math.prod(wanted) > MOST_VALUES:
        raise TooLargeError
    return span.change(lambda end: end.expand(wanted))


def gathered(span: Span, dim: int, size: int, taps: Tensor) -> Span:
    """Return the hull of the places that each new place takes along one dimension.

    Args:
        span: any.
        dim: the dimension.
        size: of the tensor there.
        taps: (new size, T) places 0..size-1 of which each new one is made, negative = none.
    """
    if span.low.shape[dim] == 1:
        if bool((taps >= 0).any(dim=1).all()):
            return span
        span = written_out(span, [size if at == dim else 1 for at in range(span.low.ndim)], [dim])
    if math.prod(span.shape) // size * taps.numel() > MOST_VALUES:
        raise TooLargeError
    index = torch.where(taps >= 0, taps, size).flatten()

    def taken(end: Tensor, nothing: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        moved = end.movedim(dim, -1)
        padded = torch.cat([moved, moved.new_full((*moved.shape[:-1], 1), nothing)], dim=-1)
        return choose(padded[..., index].unflatten(-1, tuple(taps.shape))).movedim(-1, dim)

    return span.change(
        lambda end: taken(end, NONE_LOW, lambda values: values.amin(-1)),
        lambda end: taken(end, NONE_HIGH, lambda values: values.amax(-1)),
    )


def slim(end: Tensor) -> Tensor:
    """Return a tensor with size 1 in each dimension along which it was only expanded."""
    for dim, (size, step) in enumerate(zip(end.shape, end.stride(), strict=True)):
        if size > 1 and step == 0:
            end = end.narrow(dim, 0, 1)
    return end


def slim_both(span: Span) -> Span:
    """Return it with size 1 in each dimension along which both ends are constant."""
    low, high = span.low, span.high
    for dim in range(low.ndim):
        if low.shape[dim] > 1 and all(bool((end == end.narrow(dim, 0, 1)).all()) for end in (low, high)):
            low, high = low.narrow(dim, 0, 1), high.narrow(dim, 0, 1)
    return replace(span, low=low.contiguous(), high=high.contiguous())


def moved(span: Span, shape: Sequence[int], move: Callable[[Tensor], Tensor]) -> Span:
    """Return what a function that only moves values makes of it: of a view what is constant stays of size 1.

    Args:
        span: any.
        shape: the tensor's.
        move: makes a view; what it copies is written out.
    """
    both = [move(end.expand(tuple(shape))) for end in (span.low, span.high)]
    low, high = (slim(end) for end in both)
    if low.shape != high.shape:
        low, high = both
    return replace(span, low=low, high=high)


def copied(span: Span, shape: Sequence[int], copy: Callable[[Tensor], Tensor]) -> Span:
    """Return what a function makes of it that lays values out anew; all of them are written out on the way."""
    if math.prod(shape) > MOST_VALUES:
        raise TooLargeError
    return slim_both(span.change(lambda end: copy(end.expand(tuple(shape)))))


def reshaped(span: Span, old: Sequence[int], new: Sequence[int]) -> Span:
    """Return it for a tensor of another shape with the same values in the same order.

    Dimensions that belong together are written out; those that are constant as a group stay so, and those of
    one that is split may become so.
    """
    if math.prod(old) == 0:
        return span.change(lambda end: end.reshape(-1)[:1].reshape((1,) * len(new)))
    sizes: list[int] = []
    out: list[int] = []
    is_split = False
    for before, after in shape_groups(old, new):
        constant = all(span.low.shape[dim] == 1 for dim in before)
        is_split |= len(after) > 1 and not constant
        sizes += [1] * len(before) if constant else [old[dim] for dim in before]
        out += [1] * len(after) if constant else [new[dim] for dim in after]
    if math.prod(sizes) > MOST_VALUES:
        raise TooLargeError
    found = span.change(lambda end: end.expand(sizes).reshape(out))
    return slim_both(found) if is_split else found


def shape_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which dimensions of one shape hold the same values as which of another, in order."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = 0, 0
    while left < len(old) or right < len(new):
        before: list[int] = []
        after: list[int] = []
        a = b = 1
        if left < len(old):
            a, before, left = old[left], [left], left + 1
        if right < len(new):
            b, after, right = new[right], [right], right + 1
        while a != b:
            if a < b:
                a, before, left = a * old[left], [*before, left], left + 1
            else:
                b, after, right = b * new[right], [*after, right], right + 1
        groups.append((before, after))
    return groups
