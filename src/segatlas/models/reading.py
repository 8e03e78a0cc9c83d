"""From plain fields, as in a recipe or a card, to the config of an architecture: its variant, encoder and host too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from segatlas.config.architectures import in_section, read_fields
from segatlas.config.encoder_keys import ENCODER, HOST, nested_fields
from segatlas.config.messages import show, unknown
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import Problem
from segatlas.models import ARCHITECTURES, lookup
from segatlas.models.architecture import Architecture, plain_value
from segatlas.models.host import SHARED, HostSpec

FROM_WRAPPER = (*SHARED, "start_from", "encoder_weights", "input")
"""These, and keys of a recipe's `model:` that are for the whole network."""

ReadConfig = Callable[[str, Mapping[str, Any]], tuple[Any, list[Problem]]]
"""Makes the config of the architecture or variant of that name from plain fields."""


def load_architecture(name: str) -> Architecture:
    """Import the file of an architecture (or of a variant's architecture) and return its record.

    Raises:
        KeyError: as `lookup`.
    """
    entry, _ = lookup(name)
    record: Architecture = import_module(entry.module).ARCHITECTURE
    return record


def read_config(
    record: Architecture,
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
        record: of the architecture.
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
    default = {f.name: f.default for f in dataclasses.fields(record.config)}.get(ENCODER)
    kind = type(default) if isinstance(default, EncoderSpec) else EncoderSpec
    encoder = plain_value(default) if isinstance(default, EncoderSpec) else None
    for layer in (record.variants[variant] if variant else {}, fields):
        nested, faults = nested_fields({key: plain_value(value) for key, value in layer.items()})
        problems += faults
        if ENCODER in nested:
            encoder = _laid_over(encoder, nested[ENCODER], kind)
        if HOST in nested:
            nested[HOST] = _host_laid_over(merged.get(HOST), nested[HOST])
        merged |= nested
    if ENCODER in record.fields and encoder is not None:
        merged.pop(ENCODER, None)
        ready[ENCODER], faults = kind.read(encoder, strict=strict)
        problems += [replace(p, key=f"{ENCODER}.{p.key}" if p.key else ENCODER) for p in faults]
    if HOST in merged or record.needs.host is not None:
        ready[HOST], faults = _read_host(
            record, merged.pop(HOST, None), merged, (*wrappers, record.name), strict=strict
        )
        problems += [replace(p, key=f"{HOST}.{p.key}" if p.key else HOST) for p in faults]
    config, faults = read_fields(record.config, merged, strict=strict, ready={} if problems else ready)
    problems += faults
    for key in SHARED:
        if config is not None and (count := getattr(config, key, 1)) < 1:
            problems.append(Problem(key=key, got=show(count), message="expected 1 or more"))
    return (None if problems else config), problems


def _read_host(
    record: Architecture, given: Any, fields: Mapping[str, Any], wrappers: tuple[str, ...], *, strict: bool
) -> tuple[HostSpec | None, list[Problem]]:
    """Make the spec of the network inside this one, whose own fields are `fields`."""
    if record.needs.host is None:
        able = ", ".join(name for name, entry in ARCHITECTURES.items() if entry.needs.host is not None)
        return None, [Problem(key="", message=f"{record.name} wraps no other network; those that do: {able}")]
    shared = {key: fields[key] for key in SHARED if key in fields}
    if record.needs.classes_less and isinstance(count := shared.get("num_classes"), int):
        shared["num_classes"] = max(1, count - record.needs.classes_less)

    def read(name: str, own: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
        inner, variant = load_architecture(name), lookup(name)[1]
        made, faults = read_config(inner, {**shared, **own}, variant=variant, strict=strict, wrappers=wrappers)
        known = ["name", *(key for key in inner.fields if key not in SHARED)]
        shown = [in_section(fault, "", known) for fault in faults]
        return made, [replace(problem, key=problem.key.removeprefix(".")) for problem in shown]

    if given is None:
        example = f"{{name: {record.needs.example_host}}}"
        return None, [Problem(key="", message=f"{record.name} needs a network to wrap, for example {example}")]
    return read_host(given, wrappers, record.needs.host, read)


def read_host(
    given: Any, wrappers: tuple[str, ...], accepted: tuple[str, ...], read: ReadConfig
) -> tuple[HostSpec | None, list[Problem]]:
    """Make the spec of a wrapper's host.

    Args:
        given: the host's name, or its name and fields in one group, as in a recipe.
        wrappers: names of the architectures that it stands in, the one that wraps it last.
        accepted: names of the types of output that this one can wrap.
        read: makes the host's config.

    Returns:
        The spec, None where there are problems; these, with keys of the group, "" for the group itself.
    """
    wrapper = wrappers[-1]
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping):
        return None, [Problem(key="", got=show(fields), message="expected a network's name or a group of its keys")]
    name: Any = fields.get("name")
    if message := _name_fault(name, wrappers, accepted):
        return None, [Problem(key="name", got="" if name is None else show(name), message=message)]
    entry, _ = lookup(name)
    message = f"a host has that of {wrapper}: set it beside `host`, not inside"
    problems = [Problem(key=key, got=show(fields[key]), message=message) for key in FROM_WRAPPER if key in fields]
    config, faults = read(name, {key: value for key, value in fields.items() if key not in ("name", *FROM_WRAPPER)})
    problems += [fault for fault in faults if fault.key not in FROM_WRAPPER]
    return (None if problems else HostSpec(name=entry.name, config=config, needs=entry.needs)), problems


def _name_fault(name: Any, wrappers: tuple[str, ...], accepted: tuple[str, ...]) -> str:
    """Say what is wrong with the name of a host; "" where nothing is."""
    if not isinstance(name, str):
        return "expected a network's name"
    wrapper = wrappers[-1]
    try:
        entry, _ = lookup(name)
    except KeyError:
        entries = [entry for entry in ARCHITECTURES.values() if entry.output in accepted and entry.name != wrapper]
        return unknown("network", name, [name for entry in entries for name in (entry.name, *entry.variants)])
    if entry.name in wrappers:
        return f"{entry.name} cannot wrap itself"
    if entry.output not in accepted:
        expected = " or ".join(accepted)
        return f"for {', '.join(entry.tasks)}, it gives {entry.output}; {wrapper} wraps networks that give {expected}"
    return ""


def _host_laid_over(below: Any, above: Any) -> Any:
    """Return a host's keys over those of a variant's host, where they name no other network."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **above} if above.get("name", below.get("name")) == below.get("name") else above


def _laid_over(below: Any, above: Any, kind: type[EncoderSpec]) -> Any:
    """Return an encoder's keys over those below; options of another family than that of its name leave."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    name = above.get("name", below.get("name"))
    if isinstance(name, str) and kind.family_file(name) != kind.family_file(below.get("name", name)):
        below = {"output_stride": below.get("output_stride")}
    return {**below, **above}
