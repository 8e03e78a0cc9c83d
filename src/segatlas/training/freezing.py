"""What of a network training leaves as it is: weights, and the statistics of norms."""

from __future__ import annotations

from torch import nn

from segatlas.config.schema import TrainConfig
from segatlas.errors import UsageError
from segatlas.layers.grouped import hold_dilated_groups
from segatlas.layers.strided import hold_strided_pointwise

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""What keeps statistics of the maps that it sees."""


def frozen_parts(net: nn.Module, settings: TrainConfig) -> tuple[nn.Module, ...]:
    """Return the parts that the recipe freezes.

    Raises:
        UsageError: `train.freeze_stages` is more than the encoder has.
    """
    names = {"encoder": settings.freeze_encoder, "host": settings.freeze_host}
    whole = [net.get_submodule(name) for name, is_frozen in names.items() if is_frozen]
    stages: list[list[nn.Module]] = net.get_submodule("encoder").stages() if settings.freeze_stages else []  # type: ignore[operator]
    if settings.freeze_stages > len(stages):
        raise UsageError(f"the encoder has {len(stages)} stages")
    return (*whole, *(part for stage in stages[: settings.freeze_stages] for part in stage))


def freeze(net: nn.Module, settings: TrainConfig) -> None:
    """Let no weight of these parts be trained, nor of the encoder's batch norms where the recipe says so."""
    for part in (*frozen_parts(net, settings), *(encoder_norms(net) if settings.freeze_norm_weights else ())):
        part.requires_grad_(False)


def encoder_norms(net: nn.Module) -> list[nn.Module]:
    """Return the batch norms of the encoder."""
    return [module for module in net.get_submodule("encoder").modules() if isinstance(module, BATCH_NORMS)]


def training_mode(net: nn.Module, settings: TrainConfig) -> nn.Module:
    """Put the network in training mode, but frozen parts in eval mode: they keep their statistics. Return it.

    Convolutions that torch trains wrongly are made right, see `layers.grouped` and `layers.strided`.
    """
    net.train()
    hold_dilated_groups(net)
    hold_strided_pointwise(net)
    for part in frozen_parts(net, settings):
        part.eval()
    for module in encoder_norms(net) if settings.freeze_norms else ():
        module.eval()
    return net
