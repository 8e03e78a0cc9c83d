"""The config of any network from plain fields; of a wrapper with that of its host, the network that it wraps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segatlas.config.architectures import in_section
from segatlas.config.encoder_keys import HOST
from segatlas.config.messages import show, unknown
from segatlas.errors import Problem
from segatlas.models import ARCHITECTURES, load_architecture, lookup
from segatlas.models.architecture import SHARED, Architecture, HostSpec, plain_fields

FROM_WRAPPER = (*SHARED, "start_from", "encoder_weights", "input")
"""Fields that a host has from its wrapper, and keys of a recipe's `model:` that are for the whole network."""


def read_config(
    record: Architecture,
    fields: Mapping[str, Any],
    *,
    variant: str | None = None,
    strict: bool = False,
    wrappers: tuple[str, ...] = (),
) -> tuple[Any, list[Problem]]:
    """Make the config of an architecture from plain fields, as `Architecture.read_config` does, its host included.

    Args:
        record: the architecture.
        fields: as they stand in a recipe, a card or the arguments of `create_model`; `host` is a name or a group.
        variant: one of its variants.
        strict: as of `segatlas.config.architectures.read_fields`.
        wrappers: names of the architectures that the network is to stand in, the outermost first.

    Returns:
        The config, None where there are problems; these, with the fields as their keys.
    """
    layered = {**(record.variants[variant] if variant else {}), **fields}
    own = {key: value for key, value in fields.items() if key != HOST}
    host, faults = None, list[Problem]()
    if record.needs.host is not None:
        shared = {key: layered[key] for key in SHARED if key in layered}
        inside = (*wrappers, record.name)
        host, faults = _read_host(layered.get(HOST), shared, inside, record.needs.host, strict=strict)
    elif HOST in layered:
        able = ", ".join(name for name, entry in ARCHITECTURES.items() if entry.needs.host is not None)
        faults = [Problem(key="", message=f"{record.name} wraps no other network; those that do: {able}")]
    config, problems = record.read_config(own, variant=variant, strict=strict, host=host)
    problems += [replace(fault, key=f"{HOST}.{fault.key}" if fault.key else HOST) for fault in faults]
    return (None if problems else config), problems


def _read_host(
    given: Any, shared: Mapping[str, Any], wrappers: tuple[str, ...], accepted: tuple[str, ...], *, strict: bool
) -> tuple[HostSpec | None, list[Problem]]:
    """Make the spec of a wrapper's host.

    Args:
        given: the host's name, or its name and fields in one group, as in a recipe; a ready one serves too.
        shared: the fields that it has from its wrapper.
        wrappers: names of the architectures that it stands in, the one that wraps it last.
        accepted: names of the types of output that this one can wrap.
        strict: as of `segatlas.config.architectures.read_fields`.

    Returns:
        The spec, None where there are problems; these, with keys of the group, "" for the group itself.
    """
    wrapper = wrappers[-1]
    if isinstance(given, HostSpec):
        given = {"name": given.name, **{k: v for k, v in plain_fields(given.config).items() if k not in SHARED}}
    fields = {"name": given} if isinstance(given, str) else given
    if fields is None:
        return None, [Problem(key="", message=f"{wrapper} needs a network to wrap, for example {{name: unet}}")]
    if not isinstance(fields, Mapping):
        return None, [Problem(key="", got=show(fields), message="expected a network's name or a group of its keys")]
    name: Any = fields.get("name")
    if message := _name_fault(name, wrappers, accepted):
        return None, [Problem(key="name", got="" if name is None else show(name), message=message)]
    message = f"a host has that of {wrapper}: set it beside `host`, not inside"
    problems = [Problem(key=key, got=show(fields[key]), message=message) for key in FROM_WRAPPER if key in fields]
    own = {key: value for key, value in fields.items() if key not in ("name", *FROM_WRAPPER)}
    record, variant = load_architecture(name), lookup(name)[1]
    config, faults = read_config(record, {**shared, **own}, variant=variant, strict=strict, wrappers=wrappers)
    known = ["name", *(key for key in record.fields if key not in SHARED)]
    shown = [in_section(fault, "", known) for fault in faults if fault.key not in FROM_WRAPPER]
    problems += [replace(fault, key=fault.key.removeprefix(".")) for fault in shown]
    return (None if problems else HostSpec(architecture=record, config=config)), problems


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
