"""What each operation of torch takes its results from: the rules of `dependence`, by the operation's name.

A rule gets a call and an axis of the image. Values that are multiplied by a weight depend on what the weight meets,
whatever the weight is; a constant matrix that is no weight (an interpolation written as a product) counts where it is
not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from segatlas.explain.dependence import Call, PooledPlaces, Rule, Rules, Traced, spans_of
from segatlas.explain.spans import Span, Spans, aligned, copied, gathered, moved, reduced, reshaped
from segatlas.explain.unpooling import is_unpooling, unpooled

VALUES = frozenset({"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "item", "unique2"})
"""Operations whose result, or its size, is a value."""

SIZED_BY_VALUES = frozenset({"index", "index_put_", "repeat_interleave"})
"""Operations whose result has a size that may follow from values: torch cannot tell its shape then."""

CONSTANT: dict[str, Callable[[Sequence[Any], dict[str, Any]], Any]] = {
    "zeros_like": lambda args, kwargs: 0,
    "new_zeros": lambda args, kwargs: 0,
    "empty_like": lambda args, kwargs: 0,
    "new_empty": lambda args, kwargs: 0,
    "ones_like": lambda args, kwargs: 1,
    "new_ones": lambda args, kwargs: 1,
    "full_like": lambda args, kwargs: args[1],
    "new_full": lambda args, kwargs: args[2],
}
"""Operations that take a shape alone -> the value that they fill it with."""

SAME = frozenset(
    {"clone", "contiguous", "detach", "alias", "_to_copy", "lift_fresh", "dropout", "native_dropout", "lift"}
)
VIEWS = frozenset(
    {"permute", "transpose", "t", "unsqueeze", "squeeze", "select", "slice", "expand", "narrow", "split", "unbind"}
    | {"split_with_sizes", "chunk", "movedim", "swapaxes", "unfold", "diagonal"}
)
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "flatten", "_reshape_alias", "unflatten"})
REARRANGES = frozenset(
    {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "repeat", "im2col"}
    | {"reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"}
)
REDUCTIONS = frozenset(
    {"mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "logsumexp", "prod", "any"}
    | {"all", "argmax", "argmin", "linalg_vector_norm", "norm", "median", "aminmax"}
)
KEEPING = frozenset({"softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax"})
ATTENTION = frozenset(
    {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"}
    | {"_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math", "scaled_dot_product_attention"}
)


def find(call: Call) -> Rule | None:
    """Return the rule of a call, None where there is none, or none for what is made of the image in it."""
    rule = RULES.get(call.name)
    if rule is not None:
        alone = all(one is call.args[0] for one in call.traced())
        if rule is unpooled:
            return rule if is_unpooling(call) else None
        if rule is bags:
            return None if isinstance(call.args[2], Traced) else rule
        return rule if alone or rule in OF_SEVERAL else None
    overloads = getattr(torch.ops.aten, call.name, None)
    names = overloads.overloads() if overloads is not None else ()
    is_pointwise = any(torch.Tag.pointwise in getattr(overloads, name).tags for name in names)
    return pointwise if is_pointwise else None


def pointwise(call: Call, axis: int) -> Spans:
    """Each result is made of the values at its own place."""
    rank = call.out[0].ndim
    return tuple(aligned(span, rank) for one in call.traced() for span in one.fields[axis])


def same(call: Call, axis: int) -> Spans:
    """Nothing moves."""
    return spans_of(call.args[0], axis)


def overwritten(call: Call, axis: int) -> Spans:
    """The values are those of the second argument."""
    rank = call.out[0].ndim
    return tuple(aligned(span, rank) for span in spans_of(call.args[1], axis))


def view(call: Call, axis: int) -> tuple[Spans, ...]:
    """Other strides over the same values."""
    return _each_result(call, axis, moved)


def rearranged(call: Call, axis: int) -> tuple[Spans, ...]:
    """The same values, laid out anew, some of them perhaps several times."""
    return _each_result(call, axis, copied)


def _each_result(call: Call, axis: int, change: Callable[..., Span]) -> tuple[Spans, ...]:
    source = call.args[0]
    per_result: list[list[Span]] = [[] for _ in call.out]
    for span in spans_of(source, axis):
        for number, spans in enumerate(per_result):

            def run(end: Tensor, number: int = number) -> Tensor:
                made = call.func(end, *call.args[1:], **call.kwargs)
                found: Tensor = made[number] if isinstance(made, tuple | list) else made
                return found

            spans.append(change(span, source.shape, run))
    return tuple(map(tuple, per_result))


def reshape(call: Call, axis: int) -> Spans:
    """The same values in the same order."""
    source = call.args[0]
    return tuple(reshaped(span, source.shape, call.out[0].shape) for span in spans_of(source, axis))


def rolled(call: Call, axis: int) -> Spans:
    """Shifted around, or turned over: along a constant dimension nothing changes."""
    return tuple(
        span.change(lambda end: call.func(end, *call.args[1:], **call.kwargs)) for span in spans_of(call.args[0], axis)
    )


def padded(call: Call, axis: int) -> Spans:
    """Constants around the values."""
    source, pad = call.args[0], list(call.given["pad"])
    rank = source.ndim
    amounts = [(rank - 1 - number, pad[2 * number], pad[2 * number + 1]) for number in range(len(pad) // 2)]
    found = []
    for span in spans_of(source, axis):
        for dim, before, after in amounts:
            if before or after:
                size = source.shape[dim]
                taps = torch.arange(-before, size + after)
                span = gathered(span, dim, size, torch.where(taps < size, taps, -1).unsqueeze(1))
        found.append(span)
    return tuple(found)


def joined(call: Call, axis: int) -> Spans:
    """Several tensors behind one another."""
    tensors = list(call.args[0])
    dim = call.given["dim"]
    stacked = call.name == "stack"
    rank = tensors[0].ndim + stacked
    dim %= rank
    sizes = [1 if stacked else one.shape[dim] for one in tensors]
    total, start = sum(sizes), 0
    found: list[Span] = []
    for one, size in zip(tensors, sizes, strict=True):
        for span in spans_of(one, axis) if one.numel() else ():
            taps = torch.full((total, 1), -1)
            taps[start : start + size, 0] = torch.arange(size)
            if stacked:
                span = span.change(lambda end: end.unsqueeze(dim))
            found.append(gathered(span, dim, size, taps))
        start += size
    return tuple(found)


def reduction(call: Call, axis: int) -> Spans:
    """Values of some dimensions together."""
    source = call.args[0]
    dims = call.given.get("dim")
    if isinstance(dims, bool) or dims is None or dims == []:
        dims = list(range(source.ndim))
    dims = [dims] if isinstance(dims, int) else list(dims)
    keep = bool(call.given.get("keepdim", False))
    return tuple(reduced(span, dims, keep=keep, by=call.by) for span in spans_of(source, axis))


def kept_reduction(call: Call, axis: int) -> Spans:
    """Each result takes in a whole dimension, which stays."""
    return tuple(reduced(span, [call.given["dim"]], keep=True, by=call.by) for span in spans_of(call.args[0], axis))


def layer_norm(call: Call, axis: int) -> Spans:
    """Mean and variance over the last dimensions."""
    source, count = call.args[0], len(call.given["normalized_shape"])
    dims = range(source.ndim - count, source.ndim)
    return tuple(reduced(span, list(dims), keep=True, by=call.by) for span in spans_of(source, axis))


def group_norm(call: Call, axis: int) -> tuple[Spans, ...]:
    """Mean and variance over the image and the channels of a group."""
    source, groups = call.args[0], call.given["group"]
    rest = list(range(2, source.ndim))
    found, facts = [], []
    for span in spans_of(source, axis):
        span = reduced(span, rest, keep=True, by=call.by)
        facts.append(reduced(span, [1, *rest], keep=False).change(lambda end: end.unsqueeze(1)))
        found.append(_over_groups(span, source.shape[1], groups, source.shape[1]))
    return tuple(found), tuple(facts), tuple(facts)


def _over_groups(span: Span, channels: int, groups: int, out: int) -> Span:
    """Return the hull over the channels (dimension 1) of each group, for `out` channels of as many groups."""
    if span.low.shape[1] == 1:
        return span
    if groups == 1:
        return reduced(span, [1], keep=True)
    each = channels // groups
    taps = torch.arange(channels).reshape(groups, each).repeat_interleave(out // groups, 0)
    return gathered(span, 1, channels, taps)


def batch_norm(call: Call, axis: int) -> tuple[Spans, ...]:
    """Nothing but numbers a channel, if it does not take its statistics from what it is given."""
    source = call.args[0]
    spans = spans_of(source, axis)
    if call.given.get("training"):
        dims = [dim for dim in range(source.ndim) if dim != 1]
        spans = tuple(reduced(span, dims, keep=True, by=call.by) for span in spans)
    return (spans, *((),) * (len(call.out) - 1))


def product(call: Call, axis: int) -> Spans:
    """Rows times columns. `addmm` and its like have what is added in front."""
    added, (left, right) = (call.args[:1], call.args[1:3]) if call.name in ("addmm", "baddbmm") else ((), call.args[:2])
    rank = call.out[0].ndim
    found = [aligned(span, rank) for one in added for span in spans_of(one, axis)]
    found += _times(call, left, right, axis)
    flip = [_transposed(span) for span in _times(call, _turned(right), _turned(left), axis, spans=right)]
    return (*found, *flip)


def _times(call: Call, one: Any, other: Any, axis: int, spans: Any = None) -> list[Span]:
    """Return what one @ other depends on by its left factor. spans: the factor where `one` is it transposed."""
    mine = list(spans_of(one, axis)) if spans is None else [_transposed(span) for span in spans_of(spans, axis)]
    if not mine:
        return []
    taps = None if isinstance(other, Traced) else _taps(call, other)
    if taps is None:
        return [reduced(span, [-1], keep=True, by=call.by) for span in mine]
    rank = mine[0].low.ndim
    return [gathered(span, rank - 1, other.shape[-2], taps) for span in mine]


def _turned(one: Any) -> Any:
    return one if isinstance(one, Traced) else one.transpose(-1, -2)


def _transposed(span: Span) -> Span:
    return span.change(lambda end: end.transpose(-1, -2))


def _taps(call: Call, matrix: Tensor) -> Tensor | None:
    """Return the rows at which each column of a constant matrix is not 0, (columns, T); None if it is full or a weight.

    Of a batch of matrices, where any is not 0.
    """
    if call.is_weight(matrix):
        return None
    there = matrix != 0
    while there.ndim > 2:
        there = there.any(dim=0)
    if bool(there.all()):
        return None
    counts = there.sum(dim=0)
    most = int(counts.max())
    order = there.int().argsort(dim=0, descending=True, stable=True)[:most].T
    return torch.where(torch.arange(most) < counts[:, None], order, -1)


def linear(call: Call, axis: int) -> Spans:
    """A matrix over the last dimension."""
    return tuple(reduced(span, [-1], keep=True, by=call.by) for span in spans_of(call.args[0], axis))


def attention(call: Call, axis: int) -> tuple[Spans, ...]:
    """Each query takes in all keys and all values."""
    query, key, value = call.args[:3]
    found = [reduced(span, [-1], keep=True) for span in spans_of(query, axis)]
    found += [reduced(span, [-2, -1], keep=True, by=call.by) for span in spans_of(key, axis)]
    found += [reduced(span, [-2], keep=True, by=call.by) for span in spans_of(value, axis)]
    mask = call.given.get("attn_mask", call.given.get("attn_bias"))
    found += [reduced(aligned(span, query.ndim), [-1], keep=True, by=call.by) for span in spans_of(mask, axis)]
    totals = [reduced(span, range(span.low.ndim), keep=False) for span in found]
    further = [tuple(aligned(span, out.ndim) for span in totals) for out in call.out[1:]]
    return (tuple(found), *further)


def convolution(call: Call, axis: int) -> Spans:
    """Windows of places and all channels of a group."""
    source, weight = call.args[:2]
    given = call.given
    out = call.out[0]
    dims = range(2, source.ndim)
    found = []
    for span in spans_of(source, axis):
        span = _over_groups(span, source.shape[1], given["groups"], out.shape[1])
        for number, dim in enumerate(dims):
            window = (weight.shape[dim], *(_at(given[key], number) for key in ("stride", "padding", "dilation")))
            make = transposed_taps if given["transposed"] else window_taps
            span = gathered(span, dim, source.shape[dim], make(source.shape[dim], out.shape[dim], *window))
        found.append(span)
    if isinstance(weight, Traced):  # drawn for the image: what it depends on reaches every place
        for span in spans_of(weight, axis):
            span = reduced(span, list(range(1, weight.ndim)), keep=False, by=call.by)
            found.append(span.change(lambda end: end.reshape(1, -1, *(1,) * len(dims))))
    if isinstance(call.given.get("bias"), Traced):
        found += [
            span.change(lambda end: end.reshape(1, -1, *(1,) * len(dims))) for span in spans_of(given["bias"], axis)
        ]
    return tuple(found)


def _at(values: Any, number: int) -> int:
    values = [values] if isinstance(values, int) else values
    return int(values[number] if len(values) > 1 else values[0])


def window_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return (out, kernel) places that each window takes, -1 beyond the edge."""
    taps = (torch.arange(out) * stride - padding)[:, None] + torch.arange(kernel) * dilation
    return torch.where((taps >= 0) & (taps < size), taps, -1)


def transposed_taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return (out, kernel) places that reach each place of a transposed convolution, -1 = none."""
    above = (torch.arange(out) + padding)[:, None] - torch.arange(kernel) * dilation
    taps = above.div(stride, rounding_mode="floor")
    return torch.where((above % stride == 0) & (taps >= 0) & (taps < size), taps, -1)


def pooling(call: Call, axis: int) -> Spans:
    """Windows of places of one channel."""
    source = call.args[0]
    windows = _pooled_windows(call)
    found = []
    for span in spans_of(source, axis):
        for dim, taps in enumerate(windows, start=source.ndim - len(windows)):
            span = gathered(span, dim, source.shape[dim], taps)
        found.append(span)
    return tuple(found)


def _pooled_windows(call: Call) -> list[Tensor]:
    """Return the windows of pooling along each of its dimensions, the last ones of the tensor."""
    source, out, given = call.args[0], call.out[0], call.given
    spatial = int(call.name.split("d")[0][-1])
    found = []
    for number, dim in enumerate(range(source.ndim - spatial, source.ndim)):
        kernel = _at(given["kernel_size"], number)
        stride = _at(given["stride"], number) if given.get("stride") else kernel
        dilation = _at(given["dilation"], number) if given.get("dilation") else 1
        padding = _at(given["padding"], number)
        found.append(window_taps(source.shape[dim], out.shape[dim], kernel, stride, padding, dilation))
    return found


def places_of(call: Call) -> Sequence[PooledPlaces | None]:
    """Return of each result which places its values name: those of max pooling, and the same ones in another shape."""
    nothing = [None] * len(call.out)
    if call.name == "max_pool2d_with_indices":
        rows, columns = _pooled_windows(call)
        height, width = call.args[0].shape[-2:]
        return [None, PooledPlaces(rows=rows, columns=columns, size=(height, width))]
    source = call.args[0] if call.args else None
    if call.name in SAME | RESHAPES and isinstance(source, Traced) and not call.out[0].is_floating_point():
        return [source.places]
    return nothing


def adaptive_pooling(call: Call, axis: int) -> Spans:
    """Bins, each a fraction of the map."""
    source, out = call.args[0], call.out[0]
    found = []
    for span in spans_of(source, axis):
        for dim in range(source.ndim - len(call.given["output_size"]), source.ndim):
            size, bins = source.shape[dim], out.shape[dim]
            if bins == 1:
                span = reduced(span, [dim], keep=True, by=call.by)
            elif bins != size:
                varies = span.low.shape[dim] > 1
                span = gathered(span, dim, size, bin_taps(size, bins))
                if varies:
                    span = Span(low=span.low, high=span.high, whole=span.whole, grows=span.grows or call.by)
        found.append(span)
    return tuple(found)


@lru_cache(maxsize=256)
def bin_taps(size: int, bins: int) -> Tensor:
    """Return (bins, T) places of each bin of adaptive pooling, -1 behind those that it has."""
    starts = [number * size // bins for number in range(bins)]
    ends = [-(-(number + 1) * size // bins) for number in range(bins)]
    taps = torch.tensor(starts)[:, None] + torch.arange(max(e - s for s, e in zip(starts, ends, strict=True)))
    return torch.where(taps < torch.tensor(ends)[:, None], taps, -1)


def resize(call: Call, axis: int) -> Spans:
    """Interpolation between neighbours; one of weight 0 is not taken in."""
    source, out = call.args[0], call.out[0]
    mode = next(word for word in ("nearest_exact", "nearest", "linear", "bicubic") if word in call.name.strip("_"))
    scales = [value for key, value in call.given.items() if key.startswith("scales")]
    found = []
    for span in spans_of(source, axis):
        for number, dim in enumerate(range(2, source.ndim)):
            scale = scales[number] if number < len(scales) else None
            step = Fraction(source.shape[dim], out.shape[dim])
            if scale is not None:
                step = Fraction(1 / scale).limit_denominator(1 << 20)
            corners = bool(call.given.get("align_corners", False))
            taps = resize_taps(source.shape[dim], out.shape[dim], mode, step, align_corners=corners)
            span = gathered(span, dim, source.shape[dim], taps)
        found.append(span)
    return tuple(found)


@lru_cache(maxsize=256)
def resize_taps(size: int, out: int, mode: str, step: Fraction, *, align_corners: bool) -> Tensor:
    """Return (out, T) places between which each new one lies; exact fractions, so that a weight of 0 is seen.

    Args:
        size: before.
        out: after.
        mode: nearest, nearest_exact, linear or bicubic.
        step: places before for one after, unless corners are aligned.
        align_corners: as in torch's `interpolate`.
    """
    half = Fraction(1, 2)
    taps = []
    for place in range(out):
        if mode.startswith("nearest"):
            at = place * step if mode == "nearest" else (place + half) * step
            taps.append([min(math.floor(at), size - 1)])
            continue
        if align_corners:
            at = Fraction(place * (size - 1), out - 1) if out > 1 else Fraction(0)
        else:
            at = (place + half) * step - half
        if mode == "linear":
            at = max(at, Fraction(0))
        first, part = math.floor(at), at - math.floor(at)
        around = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
        near = [first + offset for offset in around] if part else [first, *[first] * (len(around) - 1)]
        taps.append([min(max(one, 0), size - 1) for one in near])
    return torch.tensor(taps)


def chosen(call: Call, axis: int) -> Spans | tuple[Spans, ...]:
    """Values at constant places."""
    source = call.args[0]

    def copy(end: Tensor) -> Tensor:
        made: Tensor = call.func(end, *call.args[1:], **call.kwargs)
        return made

    return tuple(copied(span, source.shape, copy) for span in spans_of(source, axis))


def looked_up(call: Call, axis: int) -> Spans:
    """Rows of a table by numbers; either may be made of the image."""
    table, numbers = call.args[:2]
    found = [span.change(lambda end: end.unsqueeze(-1)) for span in spans_of(numbers, axis)]
    if not isinstance(table, Traced):
        return tuple(found)
    if isinstance(numbers, Traced):
        every = [reduced(span, [0], keep=True, by=call.by) for span in spans_of(table, axis)]
        return (*found, *(aligned(span, numbers.ndim + 1) for span in every))
    for span in spans_of(table, axis):
        rows = gathered(span, 0, table.shape[0], numbers.reshape(-1, 1))
        if rows.low.shape[0] == 1:
            found.append(aligned(rows, numbers.ndim + 1))
        else:
            found.append(rows.change(lambda end: end.reshape(*numbers.shape, end.shape[-1])))
    return tuple(found)


def bags(call: Call, axis: int) -> tuple[Spans, ...]:
    """Rows of a table added up, bag by bag; where their numbers are made of the image, any row may be one of a bag."""
    table, numbers, starts = call.args[:3]
    weights = call.given.get("per_sample_weights")
    ends = torch.cat([starts[1:].long(), torch.tensor([numbers.shape[0]])])[: call.out[0].shape[0]]
    places = starts[: len(ends)].long()[:, None] + torch.arange(int((ends - starts[: len(ends)]).max()))
    taps = torch.where(places < ends[:, None], places, -1)
    found = []
    for one in (numbers, weights):
        for span in spans_of(one, axis):
            found.append(gathered(span, 0, numbers.shape[0], taps).change(lambda end: end.unsqueeze(-1)))
    for span in spans_of(table, axis):
        if isinstance(numbers, Traced):
            found.append(reduced(span, [0], keep=True, by=call.by))
        else:
            found.append(gathered(span, 0, table.shape[0], torch.where(taps >= 0, numbers.long()[taps], -1)))
    return (tuple(found), *((),) * (len(call.out) - 1))


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(VIEWS, view),
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(REARRANGES, rearranged),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(KEEPING, kept_reduction),
    **dict.fromkeys(ATTENTION, attention),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), product),
    **dict.fromkeys(("roll", "flip"), rolled),
    **dict.fromkeys(("cat", "stack", "concat"), joined),
    **dict.fromkeys(("index_select", "index", "gather", "repeat_interleave"), chosen),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "max_pool2d", "avg_pool1d", "avg_pool3d"), pooling),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"), adaptive_pooling),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d"), resize),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), resize),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm"), batch_norm),
    "convolution": convolution,
    "embedding": looked_up,
    "_prelu_kernel": pointwise,
    "linear": linear,
    "constant_pad_nd": padded,
    "copy": overwritten,
    **dict.fromkeys(("_embedding_bag_forward_only", "_embedding_bag"), bags),
    **dict.fromkeys(("scatter", "max_unpool2d"), unpooled),
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
}
"""Operation -> its rule. Those that torch calls pointwise need none."""

OF_SEVERAL = frozenset({pointwise, overwritten, joined, product, attention, convolution, looked_up})
"""Rules that look at every argument; the others are for calls whose first one alone is made of the image."""

KNOWN = Rules(find=find, values=VALUES, sized=SIZED_BY_VALUES, constant=CONSTANT, places=places_of)
"""All that is known."""
