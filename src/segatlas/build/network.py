"""Make a network from the name of an architecture or variant and the fields of its config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.checkpoint.validation import FieldsError
from segatlas.config.encoder_keys import HOST
from segatlas.errors import UsageError, WeightsError
from segatlas.models import find_entry
from segatlas.models.architecture import Architecture
from segatlas.models.host import SHARED, HostSpec
from segatlas.models.reading import load_architecture, read_config

_CALLS_A_TENSOR, _CALLS = 100, 50_000
"""Calls of torch's functions that building a network may take: for each of its tensors, and for whatever it is."""

DEFAULT_CHANNELS = 3

_ALIASES = {"encoder_name": "encoder", "classes": "num_classes"}
"""Argument names of segmentation-models-pytorch -> ours."""

_TIMM = ("tu-", "timm/")
"""What stands before timm's names: there, and here."""


def create_model(
    name: str,
    *,
    encoder_weights: str | None = None,
    num_classes: int | None = None,
    in_channels: int = DEFAULT_CHANNELS,
    host: nn.Module | Mapping[str, Any] | str | None = None,
    **fields: Any,
) -> nn.Module:
    """Make a network with random weights, its encoder's optionally loaded.

    Args:
        name: architecture or variant, see `list_models`.
        encoder_weights: None, "imagenet" (downloads timm's published weights of that encoder), one of timm's weights by
            its name (`timm/vit_base_patch16_224.mae`), or a weights file. The
            first convolution is adapted to `in_channels`, see `load_encoder_weights`.
        num_classes: classes, K.
        in_channels: channels of the image, C.
        host: of a wrapper, such as "temperature": the network that it wraps. A name, or name and fields in one group,
            `{"name": "fcn", "encoder": "resnet34"}`; or a network of `create_model` or `load_pretrained`, which the
            wrapper then owns.
        fields: further fields of the architecture's config, e.g. `encoder="resnet34", output_stride=8` or
            `encoder={"name": "resnet34", "output_stride": 8}`; `segatlas models info NAME` lists them. `encoder_name`
            and `classes` are accepted for `encoder` and `num_classes`, there with `tu-` before timm's names.

    Returns:
        The network, in training mode, with `.config` (the architecture's dataclass) and `.architecture` (its name).

    Raises:
        UsageError: unknown name, or fields that the architecture does not take; every fault named at once.
        WeightsError: encoder weights that cannot be had or do not fit.
    """
    given = {"in_channels": in_channels, **_without_aliases(fields, num_classes)}
    finished = host if isinstance(host, nn.Module) else None
    if finished is not None:
        given |= _facts_of_host(finished, given, find_entry(name)[0].needs.classes_less)
    elif host is not None:
        given |= {HOST: host}
    architecture, config = make_config(name, given)
    net = build_network(architecture, config, finished).train()
    if encoder_weights is not None:
        load_encoder_weights(net, encoder_weights)
    return net


def make_config(name: str, fields: Mapping[str, Any]) -> tuple[Architecture, Any]:
    """Return the architecture's record and its config made of the variant's fields and, above them, `fields`.

    Raises:
        UsageError: as `create_model`.
    """
    entry, variant = find_entry(name)
    architecture = load_architecture(entry.name)
    config, problems = read_config(architecture, fields, variant=variant)
    if problems:
        faults = FieldsError(problems)
        raise UsageError(f"model '{name}' cannot be made\n{faults}\n  all fields: segatlas models info {name}")
    return architecture, config


def build_network(architecture: Architecture, config: Any, host: nn.Module | None = None) -> nn.Module:
    """Build the network and mark it with its config and architecture name.

    Of a wrapper the host is built first, so that a seed gives it the weights that it has alone; `host` is a finished
    one.

    Raises UsageError for settings that are each of their type, but that no layers can be made of.
    """
    if architecture.needs.host is not None and host is None:
        host = build_network(load_architecture(config.host.name), config.host.config)
    try:
        net = architecture.build(config) if host is None else architecture.build(config, host)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"model '{architecture.name}' cannot be made with these settings ({text}): {_own_settings(config)}"
        ) from error
    require_numbers(net, f"model '{architecture.name}' cannot be made with these settings", config)
    soften_classifiers(net, but=host)
    net.config = config
    net.architecture = architecture.name  # type: ignore[assignment]
    return net


def require_numbers(net: nn.Module, told: str, config: Any) -> None:
    """Raise UsageError where a layer has no weight, or norms no group: torch makes such layers, and runs none."""
    for name, module in net.named_modules():
        empty = any(parameter.numel() == 0 for parameter in module.parameters(recurse=False))
        if empty or (isinstance(module, nn.GroupNorm) and module.num_groups < 1):
            raise UsageError(f"{told} ({name} would be empty): {_own_settings(config)}")


def _own_settings(config: Any) -> str:
    """Return what a config says that its defaults do not."""
    parts = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING or getattr(config, field.name) != field.default
    ]
    return ", ".join(parts)


def soften_classifiers(net: nn.Module, *, but: nn.Module | None = None) -> None:
    """Let every classifier start with weights of deviation 0.01: all classes about equally likely, a loss of ln K.

    Those of the part `but` stay as they are.
    """
    kept = set() if but is None else set(but.modules())
    for name, module in net.named_modules():
        if name.rpartition(".")[2] == "classifier" and isinstance(module, nn.Conv2d) and module not in kept:
            nn.init.normal_(module.weight, std=0.01)


def build_empty(architecture: Architecture, config: Any, *, tensors: int | None = None) -> nn.Module:
    """Build the network with shapes only: all tensors are on the meta device, and nothing is drawn.

    Args:
        architecture: the record.
        config: its config dataclass.
        tensors: how many tensors a file has for it; a config that makes many times as many layers is given up.

    Raises:
        WeightsError: the config makes many times as many layers.
    """
    with shapes_only(calls=None if tensors is None else _CALLS_A_TENSOR * tensors + _CALLS):
        return build_network(architecture, config)


@contextmanager
def shapes_only(calls: int | None = None) -> Iterator[None]:
    """Make modules built inside it hold shapes only, see `build_empty`; `calls` of torch's functions at most."""
    with torch.device("meta"), _NoDraw(calls):
        yield


class _NoDraw(TorchFunctionMode):
    """Skips filling tensors with random numbers: on meta tensors that does nothing, but imports torch's compiler."""

    def __init__(self, calls: int | None = None):
        super().__init__()
        self._calls = calls

    _FILLS = frozenset({Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_})

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._calls is not None:
            self._calls -= 1
            if self._calls < 0:
                raise WeightsError("its config makes a network of many more layers than the file has")
        if func in self._FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _facts_of_host(host: nn.Module, given: Mapping[str, Any], less: int) -> dict[str, Any]:
    """Return the fields of a wrapper that follow from its finished host, which gives `less` logits fewer."""
    name, config = getattr(host, "architecture", None), getattr(host, "config", None)
    if not isinstance(name, str) or config is None:
        raise UsageError("host: the network has no .config and .architecture; make it with create_model")
    shared = {key: getattr(config, key) for key in SHARED}
    shared["num_classes"] += less
    if given.get("num_classes", shared["num_classes"]) != shared["num_classes"]:
        told = f", which makes {shared['num_classes']}" if less else ""
        raise UsageError(f"num_classes={given['num_classes']}: the host has {config.num_classes}{told}")
    if given["in_channels"] not in (config.in_channels, DEFAULT_CHANNELS):
        raise UsageError(f"in_channels={given['in_channels']}: the host takes {config.in_channels}")
    return {**shared, HOST: HostSpec(name=name, config=config, needs=find_entry(name)[0].needs)}


def _without_aliases(fields: Mapping[str, Any], num_classes: int | None) -> dict[str, Any]:
    ours = dict(fields) if num_classes is None else {"num_classes": num_classes, **fields}
    for alias, name in _ALIASES.items():
        if alias in ours:
            value = ours.pop(alias)
            if name == "encoder" and isinstance(value, str) and value.startswith(_TIMM[0]):
                value = value.replace(*_TIMM, 1)
            if name in ours and ours[name] != value:
                raise UsageError(f"{alias}={value!r} contradicts {name}={ours[name]!r}; they mean the same, give one")
            ours[name] = value
    return ours
