"""From a training checkpoint to a model folder."""

from __future__ import annotations

from pathlib import Path

from segatlas.checkpoint.card import Card
from segatlas.checkpoint.model_folder import save_pretrained
from segatlas.hub.loading import load_pretrained


def save_model(checkpoint: Path, card: Card, folder: Path) -> None:
    """Write the weights of `checkpoint` (the averaged ones where EMA is on) and `card` as a model folder.

    The folder is complete under a temporary name before it takes the place of an earlier one.
    """
    net, _ = load_pretrained(checkpoint)
    save_pretrained(net, folder, classes=card.classes, palette=card.palette, card=card)
