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

MORE = (1, 2, 4, 8, 16, 32)
"""Where widths do not divide as group norms and heads want it, multiples of so much more are tried."""

LEAST_WIDTH = 2
"""Of a ResNet."""

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
    if not isinstance(encoder, EncoderSpec) and not any(getattr(config, name, None) for name in WIDTHS):
        raise UsageError(f"control: a {architecture} has none of the fields {', '.join(WIDTHS)}")
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
        return dataclasses.replace(found, fields=_of_effect(record, config, found))
    raise UsageError(f"control: no narrower {architecture} can be made: {fault}")


def _of_effect(record: Architecture, config: Any, found: Control) -> dict[str, Any]:
    """Return the fields of a control without which it would be another network: some say nothing beside others."""
    kept = dict(found.fields)
    for name in found.fields:
        fewer = {key: value for key, value in kept.items() if key != name}
        if count_parameters(build_empty(record, dataclasses.replace(config, **fewer))) == found.parameters:
            kept = fewer
    return kept


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
    for name in WIDTHS:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[name] = scale(value, of_heads)
        elif isinstance(value, tuple) and all(isinstance(one, int) for one in value):
            found[name] = tuple(scale(one, of_heads) for one in value)
    return found


def _yaml(value: Any) -> str:
    if isinstance(value, EncoderSpec):
        told = {name: one for name, one in value.fields().items() if one != getattr(type(value.options)(), name, None)}
        return "{" + ", ".join(f"{name}: {_yaml(one)}" for name, one in told.items() if one is not None) + "}"
    return str(list(value)) if isinstance(value, tuple) else str(value)
