"""The theoretical receptive field of every layer of a network: which pixels its values can depend on.

The network's own forward runs once on a tensor without values (`dependence`), so that whatever it does is followed:
branches that are added or concatenated, other ways for other sizes, functions that are no layers. The numbers are those
of the layer in an image of a size: away from the edges the same in any larger one, unless something takes in the whole
image, or a fraction of it, which is said.

Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks",
https://arxiv.org/abs/1701.04128, tell theoretical from effective; the latter is in `measured_field`.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.explain.dependence import AXES, Trace, Traced, ValueNeededError, image
from segatlas.explain.dependence_rules import KNOWN
from segatlas.explain.layers import find_layer
from segatlas.explain.spans import MOST_VALUES, Spans
from segatlas.structures import Inputs, InputSpec

FIRST_SIZE, LARGEST_SIZE = 512, 16384
"""Sides of the image that is tried first, and of the largest."""

PATIENCE = 20.0
"""Seconds that one size may take for the next, of twice the side, to be tried."""

LONGEST_PERIOD = 512


@dataclass(frozen=True, kw_only=True)
class AxisField:
    """Rows or columns that a layer's values depend on, in pixels of the image.

    size: of the largest field. least: of the smallest, where neighbours differ (behind an upsampling). stride: pixels
    between the middles of neighbouring fields, None where there is no such order. start: the middle of the field of the
    first value, as if the image went on beyond its edges; the middle of the first pixel is at 0.5. whole: what takes in
    the whole image, "" = nothing does. grows: what takes in a fraction of it, likewise. cut: the image ends before the
    field does, so that `size` is what is left of it. length: of the image.
    """

    size: int
    least: int
    stride: Fraction | None
    start: Fraction | None
    whole: str = ""
    grows: str = ""
    cut: bool = False
    length: int = 0

    @property
    def settled(self) -> bool:
        """Tell whether a larger image would say no more: in half of the image or more no field is cut."""
        return bool(self.whole or self.grows) or (not self.cut and 2 * self.size <= self.length)

    def text(self) -> str:
        """Return the size in words."""
        if self.whole:
            return "all"
        if self.cut:
            return f"> {self.size}"
        return f"{self.least}-{self.size}" if self.least != self.size else str(self.size)


@dataclass(frozen=True, kw_only=True)
class LayerField:
    """One run of a layer. name: as in `layer_names`, "" = the network itself. kind: its class. shape: of its result.

    number: which of its results, and which of its runs, "" where there is one. rows, columns: None where it is not
    known. unknown: why.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    number: str = ""
    rows: AxisField | None
    columns: AxisField | None
    unknown: str = ""

    @property
    def title(self) -> str:
        """Name and number."""
        return (self.name or "(the network)") + self.number

    def settled(self) -> bool:
        """Tell whether a larger image would say no more."""
        axes = (self.rows, self.columns)
        return all(axis is None or axis.settled for axis in axes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""

        def plain(axis: AxisField | None) -> dict[str, Any] | None:
            if axis is None:
                return None
            known = {"size": axis.size, "least": axis.least, "cut": axis.cut}
            places = {
                name: None if value is None else float(value)
                for name, value in (("stride", axis.stride), ("start", axis.start))
            }
            return {**known, **places, "whole": axis.whole or None, "grows": axis.grows or None}

        facts = {"name": self.name, "number": self.number, "kind": self.kind, "shape": list(self.shape)}
        return {**facts, "rows": plain(self.rows), "columns": plain(self.columns), "unknown": self.unknown or None}


@dataclass(frozen=True, kw_only=True)
class FieldReport:
    """What was found.

    size: (H, W) of the image. layers: in the order in which they end. stopped: where the network asked for a value,
    which is where this ends; "" = it went to its end.
    """

    size: tuple[int, int]
    layers: tuple[LayerField, ...]
    stopped: str = ""

    def of(self, name: str) -> LayerField:
        """Return the first result of a layer's first run.

        Raises:
            UsageError: it did not run, or there is no such layer.
        """
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is not None:
            return found
        near = difflib.get_close_matches(name, [layer.name for layer in self.layers], n=5, cutoff=0.4)
        hint = f"; nearest that did: {', '.join(near)}" if near else ""
        raise UsageError(f"layer: {name!r} did not run{hint}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "size": list(self.size),
            "stopped": self.stopped or None,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def receptive_field(
    network: nn.Module,
    *,
    size: tuple[int, int] | None = None,
    inputs: Sequence[InputSpec] = (),
    without: Sequence[str] = (),
    largest: int = LARGEST_SIZE,
) -> FieldReport:
    """Return the field of each layer of a network.

    Args:
        network: any; it is run as in prediction.
        size: (H, W) of the image; default: as large as is needed for the edges to cut no field off, up to `largest`.
        inputs: what it takes, the image first; default: one of 3 channels, or as many as its config says. All lie on
            the same pixels.
        without: layers whose results are taken for constants: what remains is the field by the other ways.
        largest: side of the largest image tried.

    Raises:
        UsageError: no such layer in `without`, or the network cannot run on the size.
    """
    for name in without:
        find_layer(network, name)
    if size is not None:
        return _trace(network, _checked(size), inputs, without)
    side = min(FIRST_SIZE, largest)
    while True:
        start = time.perf_counter()
        report = _trace(network, (side, side), inputs, without)
        seconds = time.perf_counter() - start
        if all(layer.settled() for layer in report.layers) or 2 * side > largest or seconds > PATIENCE:
            return report
        side *= 2


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"size: got {size}, expected (height, width), each at least 1")
    return size


def traced_output(
    network: nn.Module, size: tuple[int, int], *, inputs: Sequence[InputSpec] = (), trace: Trace | None = None
) -> Any:
    """Return what a network makes of an image without values: its output, with `Traced` tensors in it.

    Codes have no neighbourhood that could be traced: a source of them stays away where the network copes without it.

    Raises:
        ValueNeededError: the network asks for a value.
    """
    trace = Trace.of(network, KNOWN) if trace is None else trace
    config = getattr(network, "config", None)
    specs = tuple(inputs) or (InputSpec(channels=getattr(config, "in_channels", 3)),)
    dtype = next((one.dtype for one in network.parameters() if one.is_floating_point()), torch.float32)
    given = [spec for spec in specs if spec.required or spec.kind != "label"]
    first, *further = (image(size, spec.channels, trace, dtype) for spec in given)
    present = {spec.name: torch.ones(1, dtype=torch.bool) for spec in given[1:] if not spec.required}
    sources = {
        spec.name: one[:, 0] if spec.kind == "label" else one for spec, one in zip(given[1:], further, strict=True)
    }
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return network(Inputs(first, sources, present) if len(specs) > 1 else first)
    finally:
        network.train(was_training)


def unit_box(result: Traced, row: int, column: int) -> tuple[int, int, int, int] | None:
    """Return the field of a place of a map (N, C, h, w) over all channels.

    Returns:
        Top, left, bottom, right, the last two exclusive; None where it is not known, all 0 where it is empty.
    """
    if result.unknown or result.ndim != 4:
        return None
    box = []
    for spans in result.fields:
        ends = hull(spans) if spans else (torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        if ends is None:
            return None
        low, high = (end.expand(-1, -1, result.shape[2], result.shape[3])[..., row, column] for end in ends)
        first, last = int(low.min()), int(high.max())
        box.append((first, last + 1) if first <= last else (0, 0))
    (top, bottom), (left, right) = box
    return top, left, bottom, right


def _trace(
    network: nn.Module, size: tuple[int, int], inputs: Sequence[InputSpec], without: Sequence[str]
) -> FieldReport:
    trace = Trace.of(network, KNOWN)
    found: list[LayerField] = []
    stopped = ""
    with _watched(network, trace, size, found, frozenset(without)):
        try:
            traced_output(network, size, inputs=inputs, trace=trace)
        except ValueNeededError as error:
            stopped = str(error)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            if not found:
                raise UsageError(f"the network does not run on an image of {size[0]} x {size[1]}: {error}") from error
            stopped = f"{trace.here} ({type(error).__name__}: {str(error).splitlines()[0]})"
    return FieldReport(size=size, layers=tuple(found), stopped=stopped)


@contextmanager
def _watched(
    network: nn.Module, trace: Trace, size: tuple[int, int], found: list[LayerField], without: frozenset[str]
) -> Iterator[None]:
    """Note each layer's field as it ends."""
    runs: dict[str, int] = {}
    handles = []

    def begin(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            trace.layers.append(name or "the network")

        return hook

    def end(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            trace.layers.pop()
            runs[name] = runs.get(name, 0) + 1
            results = list(_tensors(output))
            for number, result in enumerate(results):
                if name in without:
                    result.fields, result.unknown = ((), ()), ""
                which = f"[{number}]" if len(results) > 1 else ""
                again = f" #{runs[name]}" if runs[name] > 1 else ""
                found.append(_layer_field(name, module, result, size, which + again))

        return hook

    for name, module in network.named_modules():
        handles += [module.register_forward_pre_hook(begin(name)), module.register_forward_hook(end(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Traced]:
    if isinstance(output, Traced):
        yield output
    elif isinstance(output, dict):
        for one in output.values():
            yield from _tensors(one)
    elif isinstance(output, tuple | list):
        for one in output:
            yield from _tensors(one)


def _layer_field(name: str, module: nn.Module, result: Traced, size: tuple[int, int], number: str) -> LayerField:
    rows, columns, unknown = None, None, result.unknown
    if not unknown:
        rows, columns = (axis_field(spans, axis, size[axis]) for axis, spans in enumerate(result.fields))
        if rows is None or columns is None:
            unknown = "too many pairs of places"
    kind = type(module).__name__
    shape = tuple(result.shape)
    return LayerField(name=name, kind=kind, shape=shape, number=number, rows=rows, columns=columns, unknown=unknown)


def axis_field(spans: Spans, axis: int, length: int) -> AxisField | None:
    """Return what the spans of a tensor say of rows (axis 0) or columns (axis 1); None where it is too much to say."""
    found = _axis_field(spans, axis, length)
    return None if found is None else replace(found, length=length)


def hull(spans: Spans) -> tuple[Tensor, Tensor] | None:
    """Return first and last place of each value, dimensions of the tensor's size or 1; None if they are too many."""
    together = torch.broadcast_shapes(*(span.low.shape for span in spans))
    if math.prod(together) > MOST_VALUES:
        return None
    low, high = spans[0].low, spans[0].high
    for span in spans[1:]:
        low, high = torch.minimum(low, span.low), torch.maximum(high, span.high)
    return low, high


def _axis_field(spans: Spans, axis: int, length: int) -> AxisField | None:
    if not spans:
        return AxisField(size=0, least=0, stride=None, start=None)
    whole = next((span.whole for span in spans if span.whole), "")
    grows = next((span.grows for span in spans if span.grows), "")
    if whole:
        return AxisField(size=length, least=length, stride=None, start=None, whole=whole, grows=grows, cut=True)
    ends = hull(spans)
    if ends is None:
        return None
    low, high = ends
    place = _place_of_axis(low, high, axis)
    if place is None:
        return _of_values(low.flatten(), high.flatten(), length, grows)
    others = [dim for dim in range(low.ndim) if dim != place]
    return _of_line(low.amin(others), high.amax(others), length, grows)


def _place_of_axis(low: Tensor, high: Tensor, axis: int) -> int | None:
    """Return along which dimension of a map rows or columns lie; None of what is no map.

    Maps are (N, C, H, W) or (N, H, W, C); what their channels depend on may differ.
    """
    if low.ndim != 4:
        return None
    varied = {
        dim
        for dim in range(4)
        if low.shape[dim] > 1 and not all(bool((end == end.narrow(dim, 0, 1)).all()) for end in (low, high))
    }
    for place, channels in ((2 + axis, 1), (1 + axis, 3)):
        if place in varied and varied <= {place, channels}:
            return place
    return None


def _of_values(low: Tensor, high: Tensor, length: int, grows: str) -> AxisField:
    """Return the field of values in no order, each with its own."""
    there = low <= high
    if not bool(there.any()):
        return AxisField(size=0, least=0, stride=None, start=None)
    low, high = low[there], high[there]
    inside = (low > 0) & (high < length - 1)
    sizes = high - low + 1
    chosen = sizes[inside] if bool(inside.any()) else sizes
    return AxisField(
        size=int(chosen.max()),
        least=int(chosen.min()) if bool(inside.any()) else int(chosen.max()),
        stride=None,
        start=None,
        grows=grows,
        cut=not bool(inside.any()),
    )


def _of_line(low: Tensor, high: Tensor, length: int, grows: str) -> AxisField:
    """Return the field of values side by side, those that the edges cut left out."""
    inside = torch.nonzero((low > 0) & (high < length - 1) & (low <= high)).flatten()
    if not len(inside):
        return _of_values(low, high, length, grows)
    first, last = int(inside[0]), int(inside[-1])
    count = last - first + 1
    quarter = count // 4 if count > 8 else 0  # near the edges upsampling repeats the last value
    first, last = first + quarter, last - quarter
    sizes = (high - low + 1)[first : last + 1]
    twice_middle = (low + high + 1)[first : last + 1]
    stride, start = _regular(twice_middle, first)
    return AxisField(size=int(sizes.max()), least=int(sizes.min()), stride=stride, start=start, grows=grows)


def _regular(twice_middle: Tensor, first: int) -> tuple[Fraction | None, Fraction | None]:
    """Return the pixels between neighbours, and the middle of value 0; exact where a period shows, else None twice.

    Args:
        twice_middle: of fields side by side, each its middle times two.
        first: number of the first of them.
    """
    for period in range(1, min(LONGEST_PERIOD, len(twice_middle) - 1) + 1):
        steps = twice_middle[period:] - twice_middle[:-period]
        if bool((steps == steps[0]).all()):
            stride = Fraction(int(steps[0]), 2 * period)
            middle = Fraction(int(twice_middle[:period].sum()), 2 * period)
            return stride, middle - stride * (first + Fraction(period - 1, 2))
    return None, None


__all__ = ["AXES", "AxisField", "FieldReport", "LayerField", "axis_field", "receptive_field", "traced_output"]
