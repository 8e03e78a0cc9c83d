"""The record that every model file ends with: what the network is called, what builds it, which variants exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from segatlas.errors import UsageError
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


def require_at_least(config: Any, **least: float) -> None:
    """Raise UsageError naming the fields of a config that lie below their least value, here given by field name."""
    below = [
        f"{name}: got {getattr(config, name)}, expected {value} or more"
        for name, value in least.items()
        if getattr(config, name) < value
    ]
    if below:
        raise UsageError("; ".join(below))
