"""The control that pruning has to beat: the same network, narrower everywhere by one factor, at the same cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from segatlas.bench.subjects import count_flops, count_parameters
from segatlas.build.network import build_empty
from segatlas.config.encoder_keys import ENCODER
from segatlas.encoders.resnet import ResNetOptions, width_of
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.models.architecture import Architecture
from segatlas.models.reading import load_architecture
from segatlas.structures import noise_inputs

WIDTHS = ("width", "channels", "decoder_channels", "aux_channels", "head_channels", "deep_channels")
"""Fields of configs that are counts of channels, or several of them."""

FACTORS = 400
"""Widths are tried at multiples of one part in so many."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A narrower network. fields: those of its config that differ; macs, parameters: what it costs."""

    fields: Mapping[str, Any]
    macs: int
    parameters: int

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
        multiple: of which each width is one.

    Raises:
        UsageError: its config has no width, or its encoder is no ResNet and has none.
    """
    record = load_architecture(architecture)
    encoder = getattr(config, ENCODER, None)
    if isinstance(encoder, EncoderSpec) and not isinstance(encoder.options, ResNetOptions):
        raise UsageError(
            f"control: the encoder {encoder.name} has no width that a recipe could set; that of a ResNet has"
        )
    if not isinstance(encoder, EncoderSpec) and not any(getattr(config, name, None) for name in WIDTHS):
        raise UsageError(f"control: a {architecture} has none of the fields {', '.join(WIDTHS)}")
    inputs = noise_inputs(record.inputs(config), size, device="meta").given()

    @cache
    def made(part: int) -> Control:
        changed = _scaled(config, encoder, part / FACTORS, multiple)
        net = build_empty(record, dataclasses.replace(config, **changed)).eval().requires_grad_(False)
        return Control(fields=changed, macs=count_flops(net, inputs) // 2, parameters=count_parameters(net))

    low, high = 1, FACTORS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if made(middle).macs <= macs else (low, middle)
    found = min((made(low), made(high)), key=lambda control: abs(control.macs - macs))
    return dataclasses.replace(found, fields=_of_effect(record, config, found))


def _of_effect(record: Architecture, config: Any, found: Control) -> dict[str, Any]:
    """Return the fields of a control without which it would be another network: some say nothing beside others."""
    kept = dict(found.fields)
    for name in found.fields:
        fewer = {key: value for key, value in kept.items() if key != name}
        if count_parameters(build_empty(record, dataclasses.replace(config, **fewer))) == found.parameters:
            kept = fewer
    return kept


def _scaled(config: Any, encoder: Any, factor: float, multiple: int) -> dict[str, Any]:
    """Return the fields of a config that are widths, times a factor."""

    def scale(value: int) -> int:
        return max(multiple, round(value * factor / multiple) * multiple)

    found: dict[str, Any] = {}
    if isinstance(encoder, EncoderSpec):
        stem = encoder.options.stem_width
        options = dataclasses.replace(
            encoder.options, width=scale(width_of(encoder)), stem_width=None if stem is None else scale(stem)
        )
        found[ENCODER] = dataclasses.replace(encoder, options=options)
    for name in WIDTHS:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[name] = scale(value)
        elif isinstance(value, tuple) and all(isinstance(one, int) for one in value):
            found[name] = tuple(map(scale, value))
    return found


def _yaml(value: Any) -> str:
    if isinstance(value, EncoderSpec):
        told = {name: one for name, one in value.fields().items() if one != getattr(type(value.options)(), name, None)}
        return "{" + ", ".join(f"{name}: {_yaml(one)}" for name, one in told.items() if one is not None) + "}"
    return str(list(value)) if isinstance(value, tuple) else str(value)
