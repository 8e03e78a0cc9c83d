"""What an architecture or variant is: its fields with their meaning, its size, its cost. Nothing is really built."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from segatlas.build.network import build_empty, make_config
from segatlas.config.encoder_keys import HOST
from segatlas.encoders.spec import EncoderSpec
from segatlas.models import find_entry
from segatlas.models.host import HostSpec, host_in
from segatlas.models.reading import load_architecture
from segatlas.structures import Inputs, noise_inputs

MEASURED_CLASSES = 19
MEASURED_SIZE = (512, 512)


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """One field of an architecture's config. default is None and required is True where it must be given."""

    name: str
    type: str
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """An architecture, or one of its variants.

    parameters: count, for `MEASURED_CLASSES` classes; of a wrapper, its own besides its host's.
    macs: multiply-accumulates of one image of `MEASURED_SIZE` pixels, of convolutions and matrix products. One is two
        FLOPs. Of a wrapper, its own likewise, around the example of its `Needs`.
    host: of a wrapper, the types of output that the network inside may give; None otherwise, and of a variant that
        names its host: that one counts with it.
    """

    name: str
    architecture: str
    title: str
    paper: str
    tasks: tuple[str, ...]
    fields: tuple[FieldFacts, ...]
    variants: tuple[str, ...]
    parameters: int
    macs: int
    host: tuple[str, ...] | None


def describe(name: str) -> ModelFacts:
    """Return the facts of an architecture or variant.

    Raises:
        UsageError: unknown name, with the nearest ones.
    """
    entry, variant = find_entry(name)
    alone = entry.needs.host is not None and HOST not in load_architecture(name).variants.get(variant or "", {})
    inside = {HOST: entry.needs.example_host} if alone else {}
    architecture, config = make_config(name, {"num_classes": MEASURED_CLASSES, **inside})
    net = build_empty(architecture, config).eval().requires_grad_(False)  # the counter looks for gradients
    inputs = noise_inputs(architecture.inputs(config), MEASURED_SIZE, device="meta").given()
    (parameters, macs), host = _cost(net, inputs), host_in(net)
    if alone and host is not None:
        inner_parameters, inner_macs = _cost(host, inputs)
        parameters, macs = parameters - inner_parameters, macs - inner_macs
    return ModelFacts(
        name=name,
        architecture=architecture.name,
        title=architecture.title,
        paper=architecture.paper,
        tasks=architecture.tasks,
        fields=tuple(_field_facts(config)),
        variants=tuple(architecture.variants),
        parameters=parameters,
        macs=macs,
        host=architecture.needs.host if alone else None,
    )


def _cost(net: nn.Module, inputs: Tensor | Inputs) -> tuple[int, int]:
    """Return the counts of parameters and of multiply-accumulates."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, _Uncounted():
        net(inputs)
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() // 2


class _Uncounted(TorchFunctionMode):
    """Takes the result's shape alone of what costs no multiply-accumulates and is called most.

    torch works out the shape of a norm or an upsampling on the meta device in Python, step by step, which was most of
    the time.
    """

    _KEEP_SHAPE = frozenset(
        {F.batch_norm, F.layer_norm, F.group_norm, F.relu, F.relu_, F.relu6, F.gelu, F.silu, F.hardswish, F.dropout}
        | {torch.batch_norm, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, Tensor.sigmoid, torch.sigmoid}
    )
    _PAIRS = frozenset({torch.add, Tensor.add, Tensor.add_, Tensor.mul, torch.mul})

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._KEEP_SHAPE and args:
            return args[0].detach()
        if func in self._PAIRS and [type(x) for x in args] == [Tensor, Tensor] and args[0].shape == args[1].shape:
            return args[0].detach()
        if func is F.interpolate and (size := kwargs.get("size")) is not None and not isinstance(size, int):
            return args[0].new_empty((*args[0].shape[:2], *size))
        return func(*args, **kwargs)


def _field_facts(config: Any) -> Iterator[FieldFacts]:
    """Yield the facts of a config's fields; those of its encoder, with the options of that family, behind its name."""
    meanings = field_meanings(type(config))
    for field in dataclasses.fields(config):
        value, meaning = getattr(config, field.name), meanings.get(field.name, "")
        if isinstance(value, EncoderSpec):
            yield FieldFacts(name=field.name, type="encoder", required=False, default=value.name, meaning=meaning)
            yield from encoder_facts(value)
        elif isinstance(value, HostSpec):
            yield FieldFacts(name=field.name, type="network", required=True, default=None, meaning=meaning)
        else:
            needed = _is_required(field)
            shown = None if needed else value
            kind = str(field.type).replace(EncoderSpec.__name__, "encoder")
            yield FieldFacts(name=field.name, type=kind, required=needed, default=shown, meaning=meaning)


def encoder_facts(spec: EncoderSpec) -> Iterator[FieldFacts]:
    """Yield the facts of what may stand beside an encoder's name, as `encoder.KEY`."""
    strides = spec.family.output_strides
    known = "its own only" if strides == () else ", ".join(map(str, strides or ())) or "where timm's network has others"
    meaning = f"stride of the last map: {known}; None = the encoder's own."
    stride = spec.output_stride
    yield FieldFacts(name="encoder.output_stride", type="int | None", required=False, default=stride, meaning=meaning)
    meanings = field_meanings(type(spec.options))
    for field in dataclasses.fields(spec.options):
        yield FieldFacts(
            name=f"encoder.{field.name}",
            type=str(field.type),
            required=False,
            default=getattr(spec.options, field.name),
            meaning=meanings.get(field.name, ""),
        )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def field_meanings(config: type) -> dict[str, str]:
    """Return field -> meaning, from the lines `name: meaning` of docstrings; deeper lines continue one.

    Those of the classes that a config is made from come first, and its own take their place.
    """
    names = {field.name for field in dataclasses.fields(config)}
    meanings: dict[str, str] = {}
    documented = [base.__doc__ or "" for base in reversed(config.__mro__) if dataclasses.is_dataclass(base)]
    current, depth = "", 0
    for line in "\n\n".join(map(inspect.cleandoc, documented)).splitlines():
        indent = len(line) - len(line.lstrip())
        match = re.match(r"\s*(\w+): (.+)", line)
        if match and match[1] in names:
            current, depth = match[1], indent
            meanings[current] = match[2]
        elif current and line.strip() and indent > depth:
            meanings[current] += " " + line.strip()
        else:
            current = ""
    return meanings
