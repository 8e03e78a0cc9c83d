"""From a card to the keys of a recipe whose network is that of the card, so that its weights fit."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from segatlas.checkpoint.card import Card
from segatlas.config.encoder_keys import ENCODER, encoder_name
from segatlas.models.architecture import flat_fields
from segatlas.models.host import SHARED
from segatlas.models.reading import load_architecture, read_config
from segatlas.printable import shell_words

NAME = f"{ENCODER}.name"
FROM_DATA = (*SHARED, "stuff", "stuff_classes")
"""What a dataset decides."""


def network_keys(card: Card, stated: Collection[str] = ()) -> dict[str, Any]:
    """Return the keys of `model:` that make the network of a card, the name first, then what differs from its defaults.

    Args:
        card: of the weights.
        stated: keys of `model:` that a recipe below says otherwise, dotted; they are told even where they are defaults.

    Returns:
        Dotted key -> plain value. Empty for a card whose network this version cannot build.
    """
    config, problems = read_config(load_architecture(card.architecture), card.config)
    if problems:
        return {}
    usual = usual_fields(card)
    told = {
        key: value
        for key, value in flat_fields(config).items()
        if key not in FROM_DATA and (key in (ENCODER, NAME) or key in stated or key not in usual or usual[key] != value)
    }
    return {"name": card.architecture, **told}


def usual_fields(card: Card) -> dict[str, Any]:
    """Return, by dotted key, the settings of a card's network on its encoder where nothing else is said.

    Empty where nothing can be left unsaid, as of a network around another.
    """
    known = {key: card.config[key] for key in SHARED if key in card.config}
    if name := encoder_name(card.config):
        known[ENCODER] = name
    config, problems = read_config(load_architecture(card.architecture), known)
    return {} if problems else flat_fields(config)


def network_words(card: Card, stated: Collection[str] = ()) -> list[str]:
    """Return the same as `key=value` words of the command line."""
    return [f"model.{key}={_word(value)}" for key, value in network_keys(card, stated).items()]


def told_words(card: Card) -> str:
    """Return the words as a shell takes them."""
    return shell_words(network_words(card))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
