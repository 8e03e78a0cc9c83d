"""A tensor without values that knows which pixels each of them would depend on; a network's own forward runs on it.

Every operation of torch that the network calls, whatever Python calls it, arrives at `Traced.__torch_dispatch__` and is
looked up in the rules. One without a rule gives a tensor of which nothing is known, and says which operation it was:
what is made of it is not known either, and never a wrong number. Weights and other constants are real tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.explain.spans import Span, Spans, TooLargeError, merged
from segatlas.ops.torch_private import hollow_tensor, results_as_they_are

AXES = ("rows", "columns")


class ValueNeededError(Exception):
    """The network asks for a value to decide what to do next; there is none."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is known of torch's operations, by their names, see `dependence_rules`.

    find: a call -> its rule, or None. values: those whose result is a value. sized: those whose result may have a size
    that follows from values. constant: those that take a shape alone -> what they fill it with. places: a call -> of
    each of its results the places that its values name, or None.
    """

    find: Callable[[Call], Rule | None]
    values: frozenset[str]
    sized: frozenset[str]
    constant: Mapping[str, Callable[[Sequence[Any], dict[str, Any]], Any]]
    places: Callable[[Call], Sequence[PooledPlaces | None]]


@dataclass(kw_only=True, eq=False)
class Trace:
    """Where the network is. layers: names of the layers that run, the innermost last. weights: places of parameters."""

    rules: Rules
    layers: list[str] = field(default_factory=list)
    weights: frozenset[int] = frozenset()

    @classmethod
    def of(cls, network: nn.Module, rules: Rules) -> Trace:
        """Return that of a network which has not begun."""
        held = [*network.parameters(), *network.buffers()]
        return cls(rules=rules, weights=frozenset(tensor.untyped_storage().data_ptr() for tensor in held))

    @property
    def here(self) -> str:
        """Name of the layer that runs."""
        return self.layers[-1] if self.layers else "the network"


Fields = tuple[Spans, Spans]
"""What a tensor depends on: rows, then columns."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledPlaces:
    """What is known of a tensor of flat places in a map (h, w), as pooling gives them with its largest values.

    rows, columns: (h', T) rows and (w', T) columns among which the place that each window names must be, -1 = none.
    size: (h, w).
    """

    rows: Tensor
    columns: Tensor
    size: tuple[int, int]


class Traced(Tensor):
    """A tensor of a shape, on the processor, without values. `unknown`: why its fields are not known, "" = they are.

    `places`: which places its values name, where that is known; the last dimensions are those of the windows then.
    """

    shadow: Tensor
    place: Trace
    fields: Fields = ((), ())
    unknown: str = "a constant that this torch hides"
    places: PooledPlaces | None = None
    base: Traced | None = None
    has_views: bool = False

    @staticmethod
    def of(shadow: Tensor, place: Trace, fields: Fields, unknown: str = "") -> Traced:
        """Return one with the shape of a tensor without storage."""
        made: Traced = hollow_tensor(Traced, shadow)
        made.shadow, made.place, made.fields, made.unknown = shadow, place, fields, unknown
        return made

    __torch_function__ = results_as_they_are()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operation on shapes and fields."""
        return _run(func, args, dict(kwargs or {}))


def image(size: tuple[int, int], channels: int, trace: Trace, dtype: torch.dtype = torch.float32) -> Traced:
    """Return the tensor (1, C, H, W) of an image: each value depends on its own pixel."""
    shadow = torch.empty(1, channels, *size, device="meta", dtype=dtype)
    rows = torch.arange(size[0], dtype=torch.int32).reshape(1, 1, -1, 1)
    columns = torch.arange(size[1], dtype=torch.int32).reshape(1, 1, 1, -1)
    return Traced.of(shadow, trace, ((Span(low=rows, high=rows),), (Span(low=columns, high=columns),)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One operation.

    name: of torch's table, without "_" at the end where it works in place. given: arguments by name, defaults among
    them. out: the results' shapes. by: layer and operation, for people.
    """

    name: str
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    given: Mapping[str, Any]
    out: tuple[Tensor, ...]
    trace: Trace
    by: str

    def traced(self) -> list[Traced]:
        """Return the traced tensors among the arguments, in their order."""
        return _traced_among((self.args, self.kwargs))

    def is_weight(self, tensor: Tensor) -> bool:
        """Tell whether a constant is a parameter or buffer of the network, or a view of one."""
        return tensor.untyped_storage().data_ptr() in self.trace.weights


def spans_of(one: Any, axis: int) -> Spans:
    """Return what an argument depends on: nothing, if it is a constant."""
    return one.fields[axis] if isinstance(one, Traced) else ()


Rule = Callable[[Call, int], "Spans | tuple[Spans, ...]"]
"""Takes a call and an axis (0 rows, 1 columns) and returns what each result depends on, one for all alike."""


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    traced = _traced_among((args, kwargs))
    full = func._schema.name.removeprefix("aten::")
    trace = traced[0].place
    by = f"{trace.here} ({full.strip('_')})"
    rules = trace.rules
    if full in rules.values:
        raise ValueNeededError(by)
    shadows = _mapped(_shadow, args)
    options = _mapped(_shadow, {**kwargs, **({"device": torch.device("meta")} if kwargs.get("device") else {})})
    try:
        made = func(*shadows, **options)
    except RuntimeError as error:  # NotImplementedError is one
        if isinstance(error, NotImplementedError) or full in rules.sized:
            raise ValueNeededError(by) from error
        raise
    if full in rules.constant:
        return _mapped(lambda one: torch.full_like(one, rules.constant[full](args, kwargs), device="cpu"), made)
    in_place = full.endswith("_") and not full.endswith("__")
    call = Call(
        name=full.rstrip("_") if in_place else full,
        func=func,
        args=args,
        kwargs=kwargs,
        given=_by_name(func, args, kwargs),
        out=tuple(one for one in (made if isinstance(made, tuple | list) else (made,)) if isinstance(one, Tensor)),
        trace=trace,
        by=by,
    )
    unknown = next((one.unknown for one in traced if one.unknown), "")
    fields: list[Fields] = []
    if not unknown:
        rule = rules.find(call)
        try:
            fields = [] if rule is None else _fields(rule, call)
        except TooLargeError:
            unknown = f"{by}: too many pairs of places"
        if rule is None:
            unknown = by
    if unknown:
        fields = [((), ())] * len(call.out)
    if in_place:
        return _changed(args[0], fields[0], unknown, by)
    traced = [Traced.of(one, trace, each, unknown) for one, each in zip(call.out, fields, strict=True)]
    for one, places in zip(traced, rules.places(call), strict=True):
        one.places = places
    results = iter(traced)
    made = _mapped(lambda one: next(results) if isinstance(one, Tensor) else one, made)
    _note_views(func, args, made)
    return made


def _fields(rule: Rule, call: Call) -> list[Fields]:
    count = len(call.out)
    axes = []
    for axis in range(2):
        found = rule(call, axis)
        each = found if found and isinstance(found[0], tuple) else (found,) * count
        axes.append([merged(spans) for spans in each])  # type: ignore[arg-type]
    return list(zip(*axes, strict=True))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return arguments or results with each single one changed."""
    if isinstance(value, tuple | list):
        return type(value)(_mapped(change, one) for one in value)
    if isinstance(value, dict):
        return {key: _mapped(change, one) for key, one in value.items()}
    return change(value)


def _traced_among(value: Any) -> list[Traced]:
    found: list[Traced] = []
    _mapped(lambda one: found.append(one) if isinstance(one, Traced) else None, value)
    return found


def _shadow(one: Any) -> Any:
    if isinstance(one, Traced):
        return one.shadow
    return torch.empty_like(one, device="meta") if isinstance(one, Tensor) else one


def _by_name(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = [argument.name for argument in func._schema.arguments]
    defaults = {
        argument.name: argument.default_value for argument in func._schema.arguments if argument.has_default_value()
    }
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def _changed(target: Any, fields: Fields, unknown: str, by: str) -> Any:
    """Write new fields into a tensor that was changed in place.

    Raises:
        ValueNeededError: it is a constant, or shares its values with another tensor, which would not be told.
    """
    if not isinstance(target, Traced):
        raise ValueNeededError(f"{by}, which writes into a constant")
    is_shared = target.base is not None or target.has_views
    if target.places is not None and is_shared:
        raise ValueNeededError(f"{by}, which writes into a part of another tensor")
    target.places = None
    if not unknown and _same(target.fields, fields):
        return target
    if is_shared:
        raise ValueNeededError(f"{by}, which writes into a part of another tensor")
    target.fields, target.unknown = fields, unknown
    return target


def _same(one: Fields, other: Fields) -> bool:
    return all(
        len(a) == len(b)
        and all(
            x.shape == y.shape and bool((x.low == y.low).all() and (x.high == y.high).all())
            for x, y in zip(a, b, strict=True)
        )
        for a, b in zip(one, other, strict=True)
    )


def _note_views(func: Any, args: Sequence[Any], made: Any) -> None:
    """Note which results share their values with the first argument."""
    is_view = any(
        given.alias_info is not None and not given.alias_info.is_write for given in func._schema.arguments[:1]
    )
    if not is_view or not args or not isinstance(args[0], Traced):
        return
    args[0].has_views = True
    for one in made if isinstance(made, tuple | list) else (made,):
        if isinstance(one, Traced):
            one.base = args[0]
