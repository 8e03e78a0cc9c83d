"""From a training checkpoint to a model folder."""

from __future__ import annotations

from pathlib import Path

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.fitting import require_finite
from segatlas.checkpoint.model_folder import read_model, write_model


def save_model(checkpoint: Path, card: Card, folder: Path) -> None:
    """Write the weights of `checkpoint` (the averaged ones where EMA is on) and `card` as a model folder.

    The folder is complete under a temporary name before it takes the place of an earlier one.
    """
    _, tensors = read_model(checkpoint)
    require_finite(tensors, where=str(checkpoint))
    write_model(folder, card, tensors)
