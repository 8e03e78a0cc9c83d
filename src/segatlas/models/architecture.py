"""The record that every model file ends with: what the network is called, what builds it, which variants exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from segatlas.config.architectures import read_fields
from segatlas.config.encoder_keys import ENCODER, nested_fields
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import Problem, UsageError
from segatlas.models.needs import Needs
from segatlas.structures import InputSpec


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    build takes the config dataclass and returns the network. `variants` maps a published name to the config fields that
    make it; `tiny` are the fields of a variant small enough for tests (the contracts run over it).
    """

    name: str
    title: str
    paper: str
    tasks: tuple[str, ...]
    output: type
    config: type
    build: Callable[[Any], nn.Module]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)

    def inputs(self, in_channels: int) -> tuple[InputSpec, ...]:
        """Return all that a network for images of so many channels takes, the image first."""
        image = InputSpec(channels=in_channels)
        sources = self.needs.inputs
        return (image, *(replace(spec, channels=in_channels) if spec.kind == "image" else spec for spec in sources))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the config's fields."""
        return tuple(field.name for field in dataclasses.fields(self.config))

    def read_config(
        self, fields: Mapping[str, Any], *, variant: str | None = None, strict: bool = False
    ) -> tuple[Any, list[Problem]]:
        """Make the config from plain fields; those of a variant and the class's defaults lie below them.

        The encoder may be spelt flat or nested; what lies above lays its keys over those below, and options of another
        family than its own leave. An `EncoderSpec` serves too.

        Args:
            fields: as they stand in a recipe, a card or the arguments of `create_model`.
            variant: one of `variants`.
            strict: as of `segatlas.config.architectures.read_fields`.

        Returns:
            The config, None where there are problems; these, with the fields as their keys.
        """
        merged: dict[str, Any] = {}
        ready: dict[str, Any] = {}
        problems: list[Problem] = []
        default = {f.name: f.default for f in dataclasses.fields(self.config)}.get(ENCODER)
        kind = type(default) if isinstance(default, EncoderSpec) else EncoderSpec
        encoder = _plain(default) if isinstance(default, EncoderSpec) else None
        for layer in (self.variants[variant] if variant else {}, fields):
            nested, faults = nested_fields({key: _plain(value) for key, value in layer.items()})
            problems += faults
            if ENCODER in nested:
                encoder = _laid_over(encoder, nested[ENCODER], kind)
            merged |= nested
        if ENCODER in self.fields and encoder is not None:
            merged.pop(ENCODER, None)
            ready[ENCODER], faults = kind.read(encoder, strict=strict)
            problems += [replace(p, key=f"{ENCODER}.{p.key}" if p.key else ENCODER) for p in faults]
        config, faults = read_fields(self.config, merged, strict=strict, ready={} if problems else ready)
        problems += faults
        return (None if problems else config), problems


def plain_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config as they stand in a recipe: plain values, the encoder nested."""
    return asdict(config) | {
        key: value.fields() for key, value in vars(config).items() if isinstance(value, EncoderSpec)
    }


def flat_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config by dotted key, those of the encoder as `encoder.name` and so on."""
    plain = plain_fields(config)
    encoder = plain.pop(ENCODER, None)
    own = {f"{ENCODER}.{key}": value for key, value in encoder.items()} if encoder else {ENCODER: encoder}
    return own | plain


def _plain(value: Any) -> Any:
    return value.fields() if isinstance(value, EncoderSpec) else value


def _laid_over(below: Any, above: Any, kind: type[EncoderSpec]) -> Any:
    """Return an encoder's keys over those below; options of another family than that of its name leave."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    name = above.get("name", below.get("name"))
    if isinstance(name, str) and kind.family_file(name) != kind.family_file(below.get("name", name)):
        below = {"output_stride": below.get("output_stride")}
    return {**below, **above}


def require_at_least(config: Any, **least: float) -> None:
    """Raise UsageError naming the fields of a config that lie below their least value, here given by field name."""
    below = [
        f"{name}: got {getattr(config, name)}, expected {value} or more"
        for name, value in least.items()
        if getattr(config, name) < value
    ]
    if below:
        raise UsageError("; ".join(below))
