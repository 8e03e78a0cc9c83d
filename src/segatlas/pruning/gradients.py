"""Gradients of a recipe's losses on real images, which tell how much the loss changes without a channel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from segatlas.checkpoint.card import Card
from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.data.transforms.copy_paste import copy_paste_of
from segatlas.errors import UsageError
from segatlas.pruning.passes import training_outputs
from segatlas.recipe import Config
from segatlas.structures import Batch, Surroundings
from segatlas.training.building import build_parts, pipeline_of
from segatlas.training.faults import ADVICE, gradient_size, require_finite, told_of
from segatlas.training.module import forward
from segatlas.training.surroundings import surroundings_of


def gradient_source(config: Config, card: Card, batches: int) -> Callable[[nn.Module], None]:
    """Return what gives each parameter of a network the gradient of a recipe's losses, summed over training batches.

    Norms keep to their averages, and nothing is dropped.

    Args:
        config: the recipe: its data, transforms and losses. Its network is not used.
        card: of the networks that will be given; images are prepared as it says.
        batches: of `train.batch` images each, drawn by the recipe's seed.

    Raises:
        UsageError: the recipe's data has other classes.
        ConfigError, DataError: what training would raise at its start.
    """
    parts = build_parts(_of_data_and_losses(config), dry=True)
    if tuple(parts.train.classes) != card.classes:
        theirs, ours = (", ".join(names[:6]) for names in (parts.train.classes, card.classes))
        raise UsageError(
            f"{config.data.name} at {config.data.root} has {len(parts.train.classes)} classes ({theirs}), but the "
            f"network has {len(card.classes)} ({ours})"
        )
    stream = SampleStream(parts.train, pipeline_of(config, card), config.seed, copy_paste_of(config.transforms))
    order = np.random.default_rng(config.seed).permutation(len(stream))
    each = min(config.train.batch_size, len(stream))

    def give(net: nn.Module) -> None:
        net.requires_grad_(True).zero_grad()
        for number in range(batches):
            places = np.take(order, range(number * each, (number + 1) * each), mode="wrap")
            batch = collate([stream[(0, int(place))] for place in places])
            torch.manual_seed(config.seed + number)
            where = f"in batch {number + 1} of {batches}"
            with training_outputs(net), told_of(batch.keys, where, ADVICE):
                output = forward(net, batch.inputs, batch.targets, batch.sizes)
                loss, _ = parts.criterion(output, batch.targets, *_around(parts.criterion, batch, card))
            require_finite("loss", float(loss.detach()), where, ADVICE)
            loss.backward()
            require_finite("gradient", gradient_size(net), where, ADVICE)
        for parameter in net.parameters():
            if parameter.grad is None:  # of a head that none of the losses is on
                parameter.grad = torch.zeros_like(parameter)

    return give


def _of_data_and_losses(config: Config) -> Config:
    """Return a recipe whose network begins with no weights, for nothing is asked of it: theirs may be gone by now."""
    unset = {"start_from": None, "start_partial": False, "encoder_weights": None}
    return config.model_copy(update={"model": config.model.model_copy(update=unset)})


def _around(criterion: nn.Module, batch: Batch, card: Card) -> tuple[Surroundings, ...]:
    """Return what losses read of a batch besides output and truth, if they do, as at the end of a training."""
    if not getattr(criterion, "reads_around", False):
        return ()
    return (surroundings_of(batch, card.preprocessing, 1.0),)
