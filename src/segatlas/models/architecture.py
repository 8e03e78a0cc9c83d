"""The record that every model file ends with: what the network is called, what builds it, which variants exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from segatlas.config.architectures import in_section, read_fields
from segatlas.config.encoder_keys import ENCODER, HOST, nested_fields
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import Problem, UsageError
from segatlas.models import ARCHITECTURES, load_architecture, lookup
from segatlas.models.host import SHARED, HostSpec, hosts_of, read_host
from segatlas.models.needs import Needs
from segatlas.structures import InputSpec


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture.

    build takes the config dataclass and returns the network; of a wrapper it takes the finished host too. `variants`
    maps a published name to the config fields that make it; `tiny` are the fields of a variant small enough for tests
    (the contracts run over it).
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

    def inputs(self, config: Any) -> tuple[InputSpec, ...]:
        """Return all that a network of this config takes, the image first, what its hosts take last."""
        needs = [self.needs, *(ARCHITECTURES[host.name].needs for host in hosts_of(config))]
        sources = {spec.name: spec for need in needs for spec in need.inputs}.values()
        channels = config.in_channels
        image = InputSpec(channels=channels)
        return (image, *(replace(spec, channels=channels) if spec.kind == "image" else spec for spec in sources))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the config's fields."""
        return tuple(field.name for field in dataclasses.fields(self.config))

    def read_config(
        self,
        fields: Mapping[str, Any],
        *,
        variant: str | None = None,
        strict: bool = False,
        wrappers: tuple[str, ...] = (),
    ) -> tuple[Any, list[Problem]]:
        """Make the config from plain fields; those of a variant and the class's defaults lie below them.

        The encoder may be spelt flat or nested; what lies above lays its keys over those below, and options of another
        family than its own leave. An `EncoderSpec` serves too.

        Args:
            fields: as they stand in a recipe, a card or the arguments of `create_model`.
            variant: one of `variants`.
            strict: as of `segatlas.config.architectures.read_fields`.
            wrappers: the architectures that the network is to stand in, the outermost first.

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
        if HOST in merged or self.needs.host is not None:
            ready[HOST], faults = self._read_host(merged.pop(HOST, None), merged, (*wrappers, self.name), strict=strict)
            problems += [replace(p, key=f"{HOST}.{p.key}" if p.key else HOST) for p in faults]
        config, faults = read_fields(self.config, merged, strict=strict, ready={} if problems else ready)
        problems += faults
        return (None if problems else config), problems

    def _read_host(
        self, given: Any, fields: Mapping[str, Any], wrappers: tuple[str, ...], *, strict: bool
    ) -> tuple[HostSpec | None, list[Problem]]:
        """Make the spec of the network inside this one, whose own fields are `fields`."""
        if self.needs.host is None:
            able = ", ".join(name for name, entry in ARCHITECTURES.items() if entry.needs.host is not None)
            return None, [Problem(key="", message=f"{self.name} wraps no other network; those that do: {able}")]
        shared = {key: fields[key] for key in SHARED if key in fields}

        def read(name: str, own: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
            record, variant = load_architecture(name), lookup(name)[1]
            made, faults = record.read_config({**shared, **own}, variant=variant, strict=strict, wrappers=wrappers)
            known = ["name", *(key for key in record.fields if key not in SHARED)]
            shown = [in_section(fault, "", known) for fault in faults]
            return made, [replace(problem, key=problem.key.removeprefix(".")) for problem in shown]

        return read_host(given, wrappers, self.needs.host, read)


def plain_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config as they stand in a recipe: plain values, encoder and host nested."""
    nested = {key: value for key, value in vars(config).items() if isinstance(value, EncoderSpec | HostSpec)}
    return asdict(config) | {key: _plain(value) for key, value in nested.items()}


def flat_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a config by dotted key, those of encoder and host as `encoder.name` and so on."""
    plain = plain_fields(config)
    encoder = plain.pop(ENCODER, None)
    own = {f"{ENCODER}.{key}": value for key, value in encoder.items()} if encoder else {ENCODER: encoder}
    host = plain.pop(HOST, None)
    inside = {"name": host["name"], **flat_fields(config.host.config)} if host else {}
    return own | plain | {f"{HOST}.{key}": value for key, value in inside.items()}


def _plain(value: Any) -> Any:
    """Return an encoder or a host as the group of keys in a recipe, any other value as it is."""
    if isinstance(value, HostSpec):
        fields = plain_fields(value.config)
        return {"name": value.name, **{key: field for key, field in fields.items() if key not in SHARED}}
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
