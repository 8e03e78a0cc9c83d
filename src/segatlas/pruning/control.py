"""The control that pruning has to beat: the same network, narrower everywhere by one factor, at the same cost."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from segatlas.bench.subjects import count_flops, count_parameters
from segatlas.build.network import build_empty
from segatlas.build.surgery import CONVOLUTIONS, sizes_of
from segatlas.config.encoder_keys import ENCODER
from segatlas.encoders.resnet import ResNetOptions, width_of
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.models.architecture import Architecture
from segatlas.models.reading import load_architecture
from segatlas.structures import noise_inputs

WIDTH = re.compile(r"(\w+_)?(channels|widths?|hidden|growth)")
"""What fields of configs are called that are counts of channels, or several of them."""

OF_INPUTS = ("in_channels", "garment_channels", "map_channels")
"""Fields that are called so and count what goes in."""

MORE = (1, 2, 4, 8, 16, 32)
"""Where widths do not divide as group norms and heads want it, multiples of so much more are tried."""

LEAST_WIDTH = 2
"""Of a ResNet."""

FACTORS = 400
"""Widths are tried at multiples of one part in so many."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A narrower network.

    fields: those of its config that differ. macs, parameters: what it costs. same: layers that write as many channels
    as before, though they are no classes, because no field of the config says how many.
    """

    fields: Mapping[str, Any]
    macs: int
    parameters: int
    same: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Return the words that make a recipe train it."""
        return [f"model.{name}={_yaml(value)}" for name, value in self.fields.items()]


def narrower(architecture: str, config: Any, macs: int, size: tuple[int, int], *, multiple: int = 1) -> Control:
    """Return the network, narrower everywhere by one factor, whose multiply-accumulates lie nearest to a number.

    Args:
        architecture: its name.
        config: its config, of the whole width.
        macs: multiply-accumulates.
        size: (height, width) of the image that they are counted for.
        multiple: of which each width is one; of widths beside the encoder's more, where no network can be made so,
            as group norms want it.

    Raises:
        UsageError: its config has no width, its encoder is no ResNet and has none, or no narrower one can be made.
    """
    record = load_architecture(architecture)
    encoder = getattr(config, ENCODER, None)
    if isinstance(encoder, EncoderSpec) and not isinstance(encoder.options, ResNetOptions):
        raise UsageError(
            f"control: the encoder {encoder.name} has no width that a recipe could set; that of a ResNet has"
        )
    if not isinstance(encoder, EncoderSpec) and not _widths(config):
        raise UsageError(f"control: no field of a {architecture} says how many channels it has")
    inputs = noise_inputs(record.inputs(config), size, device="meta").given()

    def search(of_heads: int) -> Control:
        @cache
        def made(part: int) -> Control:
            changed = _scaled(config, encoder, part / FACTORS, multiple, of_heads)
            net = build_empty(record, dataclasses.replace(config, **changed)).eval().requires_grad_(False)
            return Control(fields=changed, macs=count_flops(net, inputs) // 2, parameters=count_parameters(net))

        low, high = 0, FACTORS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if made(middle).macs <= macs else (low, middle)
        return min((made(part) for part in (low, high) if part), key=lambda control: abs(control.macs - macs))

    fault: UsageError | None = None
    for of_heads in (multiple * more for more in MORE):
        try:
            found = search(of_heads)
        except UsageError as error:  # these widths do not divide as its layers want it
            fault = fault or error
            continue
        fields = _of_effect(record, config, found)
        return dataclasses.replace(found, fields=fields, same=_same(record, config, fields))
    raise UsageError(f"control: no narrower {architecture} can be made: {fault}")


def _of_effect(record: Architecture, config: Any, found: Control) -> dict[str, Any]:
    """Return the fields of a control without which it would be another network: some say nothing beside others."""
    kept = dict(found.fields)
    for name in found.fields:
        fewer = {key: value for key, value in kept.items() if key != name}
        with suppress(UsageError):  # fields that have to go together
            if count_parameters(build_empty(record, dataclasses.replace(config, **fewer))) == found.parameters:
                kept = fewer
    return kept


def _same(record: Architecture, config: Any, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the layers that write as many channels as before, and more than one for each class."""
    before, after = (_written(build_empty(record, dataclasses.replace(config, **one))) for one in ({}, fields))
    few = (1, config.num_classes)
    return tuple(name for name, count in after.items() if before.get(name) == count and count not in few)


def _written(net: nn.Module) -> dict[str, int]:
    """Return how many channels each layer with weights writes."""
    layers = {name: one for name, one in net.named_modules() if isinstance(one, (*CONVOLUTIONS, nn.Linear))}
    return {name: sizes[1] for name, one in layers.items() if (sizes := sizes_of(one)) is not None}


def _widths(config: Any) -> dict[str, int | tuple[int, ...]]:
    """Return the fields of a config that count channels."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        is_width = WIDTH.fullmatch(field.name) and field.name not in OF_INPUTS
        if is_width and numbers and all(type(number) is int for number in numbers):
            found[field.name] = value
    return found


def _scaled(config: Any, encoder: Any, factor: float, multiple: int, of_heads: int) -> dict[str, Any]:
    """Return the fields of a config that are widths, times a factor: multiples, the encoder's of its own."""

    def scale(value: int, multiple: int, least: int = 1) -> int:
        return max(multiple, least, round(value * factor / multiple) * multiple)

    found: dict[str, Any] = {}
    if isinstance(encoder, EncoderSpec):
        stem = encoder.options.stem_width
        options = dataclasses.replace(
            encoder.options,
            width=scale(width_of(encoder), multiple, LEAST_WIDTH),
            stem_width=None if stem is None else scale(stem, multiple),
        )
        found[ENCODER] = dataclasses.replace(encoder, options=options)
    for name, value in _widths(config).items():
        found[name] = (
            tuple(scale(one, of_heads) for one in value) if isinstance(value, tuple) else scale(value, of_heads)
        )
    return found


def _yaml(value: Any) -> str:
    if isinstance(value, EncoderSpec):
        told = {name: one for name, one in value.fields().items() if one != getattr(type(value.options)(), name, None)}
        return "{" + ", ".join(f"{name}: {_yaml(one)}" for name, one in told.items() if one is not None) + "}"
    return str(list(value)) if isinstance(value, tuple) else str(value)
