"""One optimiser step outside a run: what a dry run shows, and what tells how many images fit."""

from __future__ import annotations

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from segatlas.recipe import Config
from segatlas.structures import Batch, Output
from segatlas.training.building import TrainingComponents
from segatlas.training.distillation import trained_too, watched
from segatlas.training.faults import ADVICE, LOOK_AT, gradient_size, require_finite
from segatlas.training.module import channels_last, forward
from segatlas.training.optim import build_optimizer
from segatlas.training.surroundings import surroundings_of

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WHAT_HELPS = f"{LOOK_AT}; {ADVICE}"


def placed(batch: Batch, config: Config, device: torch.device) -> Batch:
    """Return a batch on a device, in the memory layout of the recipe."""
    inputs = batch.inputs.to(device)
    if config.train.channels_last:
        inputs = inputs.changed(channels_last)
    return batch._replace(
        inputs=inputs,
        targets=move_data_to_device(batch.targets, device),
        **{name: move_data_to_device(getattr(batch, name), device) for name in ("annotated", "present", "padding")},
    )


def passed(
    config: Config, parts: TrainingComponents, batch: Batch
) -> tuple[Output | Tensor, Tensor, dict[str, Tensor]]:
    """Return the network's output on a batch, the loss, and its terms by name."""
    settings, net, device = config.train, parts.net, batch.inputs.image.device
    criterion = parts.criterion.to(device)
    with (
        torch.autocast(device.type, AUTOCAST[settings.precision], enabled=settings.precision != "fp32"),
        watched(criterion, net, batch.inputs, batch.targets),
    ):
        output = forward(net, batch.inputs, batch.targets, batch.sizes)
    reads_around = getattr(criterion, "reads_around", False)
    around = (surroundings_of(batch, parts.card.preprocessing, 1.0),) if reads_around else ()
    loss, terms = criterion(output, batch.targets, *around)
    return output, loss, terms


def one_step(config: Config, parts: TrainingComponents, batch: Batch, where: str) -> tuple[Output | Tensor, float]:
    """Take one optimiser step; return the network's output and the loss. Raises TrainingError if it is not finite."""
    settings, net, criterion = config.train, parts.net, parts.criterion.to(batch.inputs.image.device)
    optimizer = build_optimizer(net, settings.optimizer, settings.lr, too=trained_too(criterion, config.distill))
    output, loss, terms = passed(config, parts, batch)
    each = "; ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
    require_finite("loss", float(loss.detach()), where, f"Its terms: {each}. {WHAT_HELPS}")
    loss.backward()
    require_finite("gradient", gradient_size(nn.ModuleList([net, criterion])), where, WHAT_HELPS)
    optimizer.step()
    return output, float(loss.detach())
