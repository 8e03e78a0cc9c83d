"""Unpooling: values put where pooling found its largest ones. Which place that is follows from all values of a window.

A place of the new map gets the value of a window that covers it, if the window's largest value lay there, else 0: so it
depends on the values to put and on what was pooled, of all windows that cover the place; on nothing where none does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.explain.dependence import Call, Traced, spans_of
from segatlas.explain.spans import Span, Spans, gathered, reshaped


def is_unpooling(call: Call) -> bool:
    """Tell whether a call puts values at places that are known to be those of pooling, plane by plane."""
    target, places = call.args[0], _places(call)
    if not isinstance(places, Traced) or places.places is None:
        return False
    windows = (len(places.places.rows), len(places.places.columns))
    if call.name == "max_unpool2d":
        return tuple(places.shape[-2:]) == windows
    source = call.args[3]
    fits = not isinstance(source, Tensor) or source.shape == places.shape
    is_last = call.given["dim"] % target.ndim == target.ndim - 1
    return fits and is_last and target.shape[:-1] == places.shape[:-1] and places.shape[-1] == windows[0] * windows[1]


def unpooled(call: Call, axis: int) -> Spans:
    """Each place takes in the windows that cover it, the values to put there and those that were pooled."""
    places = _places(call)
    assert isinstance(places, Traced)
    assert places.places is not None
    known = places.places
    windows = (len(known.rows), len(known.columns))
    covering = [inverted(taps, size) for taps, size in zip((known.rows, known.columns), known.size, strict=True)]
    out = call.out[0]
    values = call.args[0] if call.name == "max_unpool2d" else call.args[3]
    found = [] if call.name == "max_unpool2d" else list(spans_of(call.args[0], axis))
    for one in (values, places):
        for span in spans_of(one, axis):
            shape = tuple(one.shape)
            if call.name == "scatter":
                span = reshaped(span, shape, (*shape[:-1], *windows))
            rank = span.low.ndim
            for dim, taps, size in zip((rank - 2, rank - 1), covering, windows, strict=True):
                span = gathered(span, dim, size, taps)
            found.append(_laid_out(span, (*one.shape[: rank - 2], *known.size), tuple(out.shape)))
    return tuple(found)


def inverted(taps: Tensor, size: int) -> Tensor:
    """Return (size, T) windows that cover each of `size` places, -1 = none; taps: (windows, T) places of each."""
    windows, columns = (taps >= 0).nonzero(as_tuple=True)
    places, order = taps[windows, columns].sort(stable=True)
    counts = torch.bincount(places, minlength=size)
    made = torch.full((size, max(int(counts.max()), 1)), -1)
    number = torch.arange(len(places)) - (counts.cumsum(0) - counts)[places]
    made[places, number] = windows[order]
    return made


def _places(call: Call) -> Tensor:
    found: Tensor = call.args[1] if call.name == "max_unpool2d" else call.args[2]
    return found


def _laid_out(span: Span, shape: tuple[int, ...], new: tuple[int, ...]) -> Span:
    """Return the span of a map (..., h, w) for a result whose flat places are the same, but perhaps more or fewer."""
    if shape == new:
        return span
    *lead, height, width = shape
    flat = reshaped(span, shape, (*lead, height * width))
    total = new[-1] if len(new) == len(lead) + 1 else new[-2] * new[-1]
    if total != height * width:
        taps = torch.arange(total)
        taps = torch.where(taps < height * width, taps, -1)
        flat = gathered(flat, len(lead), height * width, taps.unsqueeze(1))
    return reshaped(flat, (*lead, total), new)
