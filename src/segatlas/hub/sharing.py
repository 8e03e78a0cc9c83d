"""A model folder to the Hugging Face hub and back: `segatlas models push` and `pull`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from segatlas.checkpoint.card import CARD_FILE, WEIGHTS_FILE, Card
from segatlas.checkpoint.model_folder import read_folder, read_model, write_model
from segatlas.downloads.hugging_face import is_hub_id, upload
from segatlas.errors import UsageError, WeightsError
from segatlas.files import whole_folder
from segatlas.hub.loading import find_model
from segatlas.hub.model_page import PAGE_FILE, model_page
from segatlas.printable import printable

_RESTRICTED = ("non-commercial", "noncommercial", "-nc", "research only", "research use", "no redistribution")
"""In the text of a licence: it does not let everybody do everything, so whoever publishes must have looked."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was sent, or would be. url: of the repository, None of a dry run. files: name -> bytes."""

    hub_id: str
    url: str | None
    private: bool
    licence: str
    files: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A model folder on this disk."""

    hub_id: str
    folder: Path
    licence: str


def push_model(
    model: str | Path,
    hub_id: str,
    *,
    private: bool = False,
    licence: str = "",
    licence_ok: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Publish a model: card, weights, and a page made of the card.

    The token is the hub client's own (`hf auth login`, HF_TOKEN); nothing of ours reads, takes or keeps one.

    Args:
        model: a run, a model folder, a `.ckpt` written by training, or a published name that is on this disk.
        hub_id: `user/name`; made where it is not there.
        private: for its owner alone. A repository that everybody sees is refused then.
        licence: of a model whose card states none; written into the card that is sent.
        licence_ok: publish without a licence, or under one that restricts use.
        dry_run: only say what would be sent; nobody is asked.

    Raises:
        UsageError: no hub id, or a licence that differs from the one the card states.
        WeightsError: no model there, a licence that must be looked at, downloads are off, or the hub refuses.
    """
    if not is_hub_id(hub_id):
        raise UsageError(f"{printable(hub_id)}: expected a hub id, user/name")
    place = find_model(model, offline=True)
    card, tensors = read_model(place)
    stated = licensed(card, licence, model=str(model), licence_ok=licence_ok)
    with tempfile.TemporaryDirectory() as scratch:
        folder = place
        if place.is_file():
            folder = Path(scratch) / "model"
            stated = write_model(folder, stated, tensors)
        contents: dict[str, Path | bytes] = {
            CARD_FILE: stated.to_text().encode(),
            WEIGHTS_FILE: folder / WEIGHTS_FILE,
            PAGE_FILE: model_page(stated, hub_id).encode(),
        }
        url = None if dry_run else upload(hub_id, contents, private=private)
        sizes = {name: _size(content) for name, content in contents.items()}
    return Pushed(hub_id=hub_id, url=url, private=private, licence=stated.licence, files=sizes)


def pull_model(hub_id: str, out: Path, *, offline: bool = False, commercial_ok: bool = False) -> Pulled:
    """Copy a model of the hub into a folder, its hash checked.

    Args:
        hub_id: `user/name`.
        out: the folder to make; an existing one that is not empty is refused.
        offline: only what an earlier call has fetched.
        commercial_ok: refuse a licence that is known to forbid commercial use.

    Raises:
        UsageError: no hub id.
        WeightsError: as for `load`, or the folder cannot be made.
    """
    if not is_hub_id(hub_id):
        raise UsageError(f"{printable(hub_id)}: expected a hub id, user/name")
    place = find_model(hub_id, offline=offline)
    card, _ = read_folder(place)
    if commercial_ok and "non-commercial" in card.licence.lower():
        raise WeightsError(f"{hub_id}: refused, commercial use is asked for, but its licence is: {card.licence}")
    with whole_folder(out, error=WeightsError) as fresh:
        for name in (CARD_FILE, WEIGHTS_FILE):
            shutil.copyfile(place / name, fresh / name)  # the hub's cache holds links
    return Pulled(hub_id=hub_id, folder=out, licence=card.licence)


def licensed(card: Card, licence: str, *, model: str, licence_ok: bool) -> Card:
    """Return the card with its licence stated; refuse what somebody must have looked at first."""
    model = printable(model)
    if licence and card.licence and licence != card.licence:
        raise UsageError(f"--licence: {model} has one already, which stays: {printable(card.licence)}")
    found = card.licence or licence
    if not found and not licence_ok:
        raise WeightsError(
            f"{model}: its card states no licence, so nobody may use what is published; "
            "state one by --licence, such as --licence Apache-2.0, or publish without by --licence-ok"
        )
    if any(word in found.lower() for word in _RESTRICTED) and not licence_ok:
        raise WeightsError(
            f"{model}: its licence restricts use: {printable(found)}; whether it lets you publish the weights is yours "
            "to read; if so: --licence-ok"
        )
    return replace(card, licence=found)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
