"""The network inside a wrapper: its description in the wrapper's config, and how it is read from plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from segatlas.config.encoder_keys import HOST
from segatlas.config.messages import show, unknown
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import Problem
from segatlas.models import ARCHITECTURES, lookup

SHARED = ("num_classes", "in_channels")
"""Fields that a host has from its wrapper."""

FROM_WRAPPER = (*SHARED, "start_from", "encoder_weights", "input")
"""These, and keys of a recipe's `model:` that are for the whole network."""

ReadConfig = Callable[[str, Mapping[str, Any]], tuple[Any, list[Problem]]]
"""Makes the config of the architecture or variant of that name from plain fields."""


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A network as the host of another.

    name: its architecture. config: an instance of that architecture's config dataclass.
    """

    name: str
    config: Any

    def __str__(self) -> str:
        """Return the name."""
        return self.name


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
    if fields is None:
        return None, [Problem(key="", message=f"{wrapper} needs a network to wrap, for example {{name: unet}}")]
    if not isinstance(fields, Mapping):
        return None, [Problem(key="", got=show(fields), message="expected a network's name or a group of its keys")]
    name: Any = fields.get("name")
    if message := _name_fault(name, wrappers, accepted):
        return None, [Problem(key="name", got="" if name is None else show(name), message=message)]
    message = f"a host has that of {wrapper}: set it beside `host`, not inside"
    problems = [Problem(key=key, got=show(fields[key]), message=message) for key in FROM_WRAPPER if key in fields]
    config, faults = read(name, {key: value for key, value in fields.items() if key not in ("name", *FROM_WRAPPER)})
    problems += [fault for fault in faults if fault.key not in FROM_WRAPPER]
    return (None if problems else HostSpec(name=lookup(name)[0].name, config=config)), problems


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


def hosts_of(config: Any) -> Iterator[HostSpec]:
    """Yield the hosts that a config names, the outermost first."""
    while isinstance(host := getattr(config, HOST, None), HostSpec):
        yield host
        config = host.config


def innermost(config: Any) -> Any:
    """Return the config of the innermost host; the config itself where it wraps none."""
    return [config, *(host.config for host in hosts_of(config))][-1]


def encoder_of(config: Any) -> EncoderSpec | None:
    """Return the encoder of a network, of a wrapper that of its host; None where it has no named one."""
    spec: EncoderSpec | None = getattr(innermost(config), "encoder", None)
    return spec


def with_classes(config: Any, count: int) -> Any:
    """Return the config for another number of classes, its hosts included."""
    host = getattr(config, HOST, None)
    changed = {HOST: replace(host, config=with_classes(host.config, count))} if isinstance(host, HostSpec) else {}
    return dataclasses.replace(config, num_classes=count, **changed)


def host_in(net: nn.Module) -> nn.Module | None:
    """Return the network that a network wraps, None where it wraps none."""
    found = getattr(net, HOST, None)
    return found if isinstance(found, nn.Module) else None
