"""From a card to the keys of a recipe whose network is that of the card, so that its weights fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from typing import Any

from segatlas.checkpoint.card import Card
from segatlas.config.encoder_keys import ENCODER
from segatlas.models.architecture import flat_fields
from segatlas.models.host import SHARED
from segatlas.models.reading import load_architecture, read_config

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
    record = load_architecture(card.architecture)
    config, problems = read_config(record, card.config)
    if problems:
        return {}
    own = flat_fields(config)
    plain, _ = read_config(record, {key: card.config[key] for key in SHARED if key in card.config})
    usual = {} if plain is None else flat_fields(plain)
    spec = getattr(config, ENCODER, None)
    options = {} if spec is None else type(spec)(name=spec.name).fields()
    alone = {f"{ENCODER}.{key}": value for key, value in options.items()}
    told = {
        key: value
        for key, value in own.items()
        if key not in FROM_DATA
        and (
            plain is None
            or key in (ENCODER, NAME)
            or key in stated
            or any(layer.get(key, value) != value for layer in (usual, alone))
        )
    }
    return {"name": card.architecture, **told}


def network_words(card: Card, stated: Collection[str] = ()) -> list[str]:
    """Return the same as `key=value` words of the command line."""
    return [f"model.{key}={_word(value)}" for key, value in network_keys(card, stated).items()]


def told_words(card: Card) -> str:
    """Return the words as a shell takes them."""
    return shlex.join(network_words(card))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
