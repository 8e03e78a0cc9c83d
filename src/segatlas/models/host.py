"""What configs of wrappers, networks around another one, say of it: their host. Their frame is in `hosted`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segatlas.config.encoder_keys import HOST
from segatlas.encoders.spec import EncoderSpec
from segatlas.models.needs import Needs

if TYPE_CHECKING:
    from torch import nn

SHARED = ("num_classes", "in_channels")
"""Fields that a host has from its wrapper."""


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A network as the host of another.

    name: its architecture. config: an instance of that architecture's config dataclass. needs: of its record.
    """

    name: str
    config: Any
    needs: Needs

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def aux_names_of(net: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's auxiliary logits: those that it lists, or "fcn" of an `aux_head`."""
    plain = ("fcn",) if getattr(net, "aux_head", None) is not None else ()
    names: tuple[str, ...] = getattr(net, "aux_names", plain)
    return names


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
    """Return the config for another number of classes, its hosts included, which have as many fewer as before."""
    host, changed = getattr(config, HOST, None), {}
    if isinstance(host, HostSpec):
        less = config.num_classes - host.config.num_classes
        changed = {HOST: replace(host, config=with_classes(host.config, count - less))}
    return dataclasses.replace(config, num_classes=count, **changed)


def host_in(net: nn.Module) -> nn.Module | None:
    """Return the network that a network wraps, None where it wraps none."""
    from torch import nn

    found = getattr(net, HOST, None)
    return found if isinstance(found, nn.Module) else None
