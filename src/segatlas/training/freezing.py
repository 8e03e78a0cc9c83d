"""What of a network training leaves as it is: weights, and the statistics of norms."""

from __future__ import annotations

from torch import nn

from segatlas.config.schema import TrainConfig


def frozen_parts(net: nn.Module, settings: TrainConfig) -> tuple[nn.Module, ...]:
    """Return the parts that the recipe freezes."""
    names = {"encoder": settings.freeze_encoder, "host": settings.freeze_host}
    return tuple(net.get_submodule(name) for name, is_frozen in names.items() if is_frozen)


def freeze(net: nn.Module, settings: TrainConfig) -> None:
    """Let no weight of these parts be trained."""
    for part in frozen_parts(net, settings):
        part.requires_grad_(False)


def training_mode(net: nn.Module, settings: TrainConfig) -> nn.Module:
    """Put the network in training mode, but frozen parts in eval mode: they keep their statistics. Return it."""
    net.train()
    for part in frozen_parts(net, settings):
        part.eval()
    return net
