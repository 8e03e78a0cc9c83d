"""The record that every model file ends with: what the network is called, what builds it, which variants exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segatlas.config.encoder_keys import dotted_fields
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.models.host import SHARED, HostSpec, hosts_of
from segatlas.models.needs import Needs
from segatlas.structures import InputSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    build takes the config dataclass and returns the network; of a wrapper it takes the finished host too. `variants`
    maps a published name to the config fields that make it; `tiny` are the fields of a variant small enough for tests
    (the contracts run over it). `exports_dynamic`: its exported program takes any batch, height and width; where it
    can't, `not_dynamic_because` says why in one sentence.
    """

    name: str
    title: str
    paper: str
    tasks: tuple[str, ...]
    output: type
    config: type
    build: Callable[..., nn.Module]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    exports_dynamic: bool = True
    not_dynamic_because: str = ""

    def inputs(self, config: Any) -> tuple[InputSpec, ...]:
        """Return all that a network of this config takes, the image first, what its hosts take last."""
        needs = [(self.needs, config), *((host.needs, host.config) for host in hosts_of(config))]
        sources = {spec.name: spec for need, of in needs for spec in further_inputs(need, of)}.values()
        channels = config.in_channels
        image = InputSpec(channels=channels)
        return (image, *(replace(spec, channels=channels) if spec.kind == "image" else spec for spec in sources))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the config's fields."""
        return tuple(field.name for field in dataclasses.fields(self.config))


def further_inputs(needs: Needs, config: Any) -> tuple[InputSpec, ...]:
    """Return the sources that a network of this config takes besides the image, those of its hosts not counted."""
    named: tuple[InputSpec, ...] = config.source_specs() if needs.from_config else needs.inputs
    return named


def plain_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config as they stand in a recipe: plain values, encoder and host nested."""
    nested = {key: value for key, value in vars(config).items() if isinstance(value, EncoderSpec | HostSpec)}
    return asdict(config) | {key: plain_value(value) for key, value in nested.items()}


def flat_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config by dotted key, those of encoder and host as `encoder.name` and so on."""
    return dotted_fields(plain_fields(config))


def plain_value(value: Any) -> Any:
    """Return an encoder or a host as the group of keys in a recipe, any other value as it is."""
    if isinstance(value, HostSpec):
        fields = plain_fields(value.config)
        return {"name": value.name, **{key: field for key, field in fields.items() if key not in SHARED}}
    return value.fields() if isinstance(value, EncoderSpec) else value


def require_at_least(config: Any, **least: float) -> None:
    """Raise UsageError naming the fields of a config that lie below their least value, here given by field name."""
    below = [
        f"{name}: got {getattr(config, name)}, expected {value} or more"
        for name, value in least.items()
        if getattr(config, name) < value
    ]
    if below:
        raise UsageError("; ".join(below))
