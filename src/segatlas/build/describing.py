"""What an architecture or variant is: its fields with their meaning, its size, its cost. Nothing is really built."""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segatlas.build.network import build_empty, make_config
from segatlas.structures import noise_inputs

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

    parameters: count, for `MEASURED_CLASSES` classes.
    macs: multiply-accumulates of one image of `MEASURED_SIZE` pixels, of convolutions and matrix products. One is two
        FLOPs.
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


def describe(name: str) -> ModelFacts:
    """Return the facts of an architecture or variant.

    Raises:
        UsageError: unknown name, with the nearest ones.
    """
    architecture, config = make_config(name, {"num_classes": MEASURED_CLASSES})
    net = build_empty(architecture, config).eval()
    inputs = noise_inputs(architecture.inputs(config.in_channels), MEASURED_SIZE, device="meta").given()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net(inputs)
    meanings = field_meanings(architecture.config)
    fields = tuple(
        FieldFacts(
            name=field.name,
            type=str(field.type),
            required=_is_required(field),
            default=None if _is_required(field) else getattr(config, field.name),
            meaning=meanings.get(field.name, ""),
        )
        for field in dataclasses.fields(architecture.config)
    )
    return ModelFacts(
        name=name,
        architecture=architecture.name,
        title=architecture.title,
        paper=architecture.paper,
        tasks=architecture.tasks,
        fields=fields,
        variants=tuple(architecture.variants),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        macs=counter.get_total_flops() // 2,
    )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def field_meanings(config: type) -> dict[str, str]:
    """Return field -> meaning, from the lines `name: meaning` of a config's docstring; deeper lines continue one."""
    names = {field.name for field in dataclasses.fields(config)}
    meanings: dict[str, str] = {}
    current, depth = "", 0
    for line in inspect.cleandoc(config.__doc__ or "").splitlines():
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
