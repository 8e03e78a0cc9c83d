"""What a path or a name means: a model on this disk, in the catalogue or on the hub; and loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from segatlas.build.assembling import assemble
from segatlas.checkpoint.card import CARD_FILE, WEIGHTS_FILE, Card
from segatlas.checkpoint.model_folder import local_model, pretrained_weights, read_model
from segatlas.config.objects import NETWORK_FIELDS
from segatlas.downloads.hugging_face import fetch_folder, is_hub_id
from segatlas.errors import WeightsError
from segatlas.files import near_paths
from segatlas.hub.catalogue import is_published, nearest_published
from segatlas.hub.fetching import fetch_published
from segatlas.models import ARCHITECTURES, load_architecture
from segatlas.printable import printable


def load_pretrained(
    path: str | Path,
    *,
    offline: bool = False,
    commercial_ok: bool = False,
    objects: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Card]:
    """Load a network with its card, on the CPU in eval mode.

    Args:
        path: a run folder, a model folder, a `.ckpt` written by training (its averaged weights where it has them), a
            name of the catalogue, or a hub id `user/name`.
        offline: download nothing; so does `SEGATLAS_OFFLINE`, set to anything but 0.
        commercial_ok: refuse weights whose licence is known to forbid commercial use.
        objects: what is asked of objects, see `with_bounds`.

    Raises:
        WeightsError: nothing usable there, weights that do not fit the card's network, or a hash that differs.
    """
    place = find_model(path, offline=offline, commercial_ok=commercial_ok)
    card, tensors = read_model(place)
    if commercial_ok and "non-commercial" in card.licence.lower():
        raise WeightsError(
            f"{printable(path)}: refused, commercial use is asked for, but its licence is: {card.licence}"
        )
    card = with_bounds(card, objects or {})
    return assemble(card, tensors, where=str(place)), card


def with_bounds(card: Card, objects: Mapping[str, Any]) -> Card:
    """Return the card with a network's own bounds on objects as they are asked for, where it has such fields.

    Args:
        card: of the network.
        objects: "score", "top", "overlap" or "class_agnostic" -> its value; None = as it is.
    """
    asked = {NETWORK_FIELDS[name]: value for name, value in objects.items() if value is not None}
    if not asked or card.architecture not in ARCHITECTURES:  # an unknown one is told when its network is built
        return card
    known = load_architecture(card.architecture).fields
    fields = {name: value for name, value in asked.items() if name in known}
    return replace(card, config={**card.config, **fields}) if fields else card


def find_model(path: str | Path, *, offline: bool = False, commercial_ok: bool = False) -> Path:
    """Return the model folder or `.ckpt` file that `path` means: itself, a run's `model/`, or something fetched.

    Args:
        path: a file or folder, a name of the catalogue (`segatlas models list --published`), or a hub id.
        offline: fetch nothing; so does `SEGATLAS_OFFLINE`, set to anything but 0.
        commercial_ok: refuse catalogue weights whose licence forbids commercial use.

    Raises:
        WeightsError: no such file, folder or name; a folder without a model; or it cannot be fetched.
    """
    place = local_model(path)
    if place is not None:
        return place
    if is_published(str(path)):
        return fetch_published(str(path), offline=offline, commercial_ok=commercial_ok)
    here = ", ".join(printable(other) for other in near_paths(path))
    hint = f"; called nearly so here: {here}" if here else ""
    if not os.path.lexists(Path(path).expanduser()) and is_hub_id(str(path)):
        try:
            return fetch_folder(str(path), (CARD_FILE, WEIGHTS_FILE), offline=offline)
        except WeightsError as error:
            raise WeightsError(f"{error}{hint}") from error
    near = nearest_published(str(path))
    hint += f"; published weights like it: {near}" if near else ""
    raise WeightsError(f"{printable(path)}: no such file or folder{hint}")


def find_start(path: str | Path) -> Path:
    """Return what a recipe's `start_from` means: as `find_model`, and a weights file is itself.

    Of a pre-training's run it is the file that the run has left.
    """
    file = Path(path).expanduser()
    return file if file.is_file() else pretrained_weights(file) or find_model(path)
