"""From a network back to what a disk holds: its card, and the model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from segatlas.build.surgery import surgery_of
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.model_folder import write_model
from segatlas.checkpoint.preprocessing import default_preprocessing
from segatlas.config.messages import unknown
from segatlas.config.objects import rule_of
from segatlas.errors import UsageError
from segatlas.models import find_entry
from segatlas.models.architecture import plain_fields
from segatlas.models.reading import load_architecture
from segatlas.palette import default_palette

_FROM_NETWORK = ("architecture", "config", "surgery", "sha256", "version")
"""Fields of a card that are never given by hand."""


def save_pretrained(
    net: nn.Module,
    folder: str | Path,
    *,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]] | None = None,
    card: Card | None = None,
    **facts: Any,
) -> Path:
    """Write a network as a model folder that `load_pretrained` reads back exactly.

    The folder appears complete or not at all. Weights and card of an existing folder are replaced together, once the
    new ones are written; other files in it stay.

    Args:
        net: a network of `create_model` or `load_pretrained`.
        folder: where to write.
        classes: class names by index.
        palette: RGB colour of each class; default: `segatlas.palette.default_palette`.
        card: facts to take over (preprocessing, licence, ...); default: those of the architecture.
        facts: fields of `Card` to set above these, e.g. `licence="Apache-2.0"`.

    Returns:
        The folder.

    Raises:
        UsageError: facts that contradict each other or the network.
        WeightsError: the folder cannot be written.
    """
    complete = make_card(net, classes=classes, palette=palette, card=card, **facts)
    write_model(Path(folder), complete, net.state_dict())
    return Path(folder)


def make_card(
    net: nn.Module,
    *,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]] | None = None,
    card: Card | None = None,
    **facts: Any,
) -> Card:
    """Return the card of a network, checked; arguments as for `save_pretrained`.

    Raises:
        UsageError: the network was not made by `create_model`, an unknown fact, or facts that contradict each other.
    """
    config, name = getattr(net, "config", None), getattr(net, "architecture", None)
    if not dataclasses.is_dataclass(config) or not isinstance(name, str):
        raise UsageError("the network has no .config and .architecture; make it with create_model")
    known = [field.name for field in dataclasses.fields(Card) if field.name not in _FROM_NETWORK]
    for fact in facts:
        if fact not in known:
            raise UsageError(f"'{fact}': {unknown('fact of a card', fact, known)}")
    entry, _ = find_entry(name)
    settings = plain_fields(config)
    channels = settings["in_channels"]
    own: dict[str, Any] = {
        "architecture": name,
        "config": settings,
        "surgery": surgery_of(net),
        "classes": tuple(classes),
        "palette": default_palette(len(classes)) if palette is None else tuple(map(tuple, palette)),
    }
    defaults: dict[str, Any] = {
        "task": entry.tasks[0],
        "inputs": load_architecture(name).inputs(config),
        "preprocessing": default_preprocessing(channels, *getattr(net, "encoder_statistics", ())),
        "objects": rule_of(settings),
    }
    made = dataclasses.replace(card, **own, **facts) if card is not None else Card(**{**defaults, **own, **facts})
    try:
        made.check()
    except UsageError as error:
        raise UsageError(f"the card's facts contradict each other\n{error}") from None
    return made
