"""A card and its tensors on a disk: as a model folder (`model.safetensors` + `card.json`), or in a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from segatlas.checkpoint.card import CARD_FILE, WEIGHTS_FILE, Card
from segatlas.checkpoint.reading import named_tensors, read_state_dict, read_torch
from segatlas.checkpoint.unpickling import Inert
from segatlas.errors import WeightsError
from segatlas.files import sha256, whole_file, whole_folder
from segatlas.printable import printable

PRETRAINED_FILE = "pretrained.safetensors"
"""In a run folder, what a pre-training leaves: a network without its classifier, its card among the metadata."""

WEIGHTS_ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
"""How files of weights end."""

_CARD_KEY = "segatlas_card"

_STATES = ("ema_state_dict", "state_dict")
"""Where a training checkpoint has the network's tensors; the first one that is not empty is taken."""

_NETWORK_PREFIX = "net."
"""In a training checkpoint the network's tensors carry this prefix."""


def write_model(folder: Path, card: Card, tensors: Mapping[str, Tensor]) -> Card:
    """Write a model folder, which appears complete or not at all; return the card as it was written.

    Weights and card of an existing folder are replaced together, once the new ones are written; other files in it stay.

    Raises:
        WeightsError: the folder cannot be written.
    """
    plain = plain_tensors(tensors)
    with whole_folder(folder, error=WeightsError, replace=True) as fresh:
        with whole_file(fresh / WEIGHTS_FILE, error=None, durable=False) as file:  # with the umask's mode
            try:
                save_file(plain, file, metadata={"format": "pt"})
            except SafetensorError as error:
                raise OSError(str(error)) from error
        written = dataclasses.replace(card, sha256=sha256(fresh / WEIGHTS_FILE))
        (fresh / CARD_FILE).write_text(written.to_text(), encoding="utf-8")
    return written


def write_pretrained(file: Path, card: Card, tensors: Mapping[str, Tensor]) -> None:
    """Write what a pre-training leaves, whole or not at all. card: of the network, its classes those of images.

    Raises:
        WeightsError: the file cannot be written.
    """
    plain = plain_tensors(tensors)
    with whole_file(file, error=WeightsError) as temporary:
        try:
            save_file(plain, temporary, metadata={"format": "pt", _CARD_KEY: card.to_text()})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_weights(file: Path) -> tuple[Card | None, dict[str, Tensor]]:
    """Return the tensors of a weights file, and the card of one that a pre-training has left."""
    found = read_state_dict(file)
    text = found.meta.get(_CARD_KEY)
    if not isinstance(text, str):
        return None, found.tensors
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        raise WeightsError(f"{printable(file)}: the card among its metadata is no JSON") from None
    return Card.from_dict(facts, where=f"{printable(file)}: card"), found.tensors


def pretrained_weights(path: str | Path) -> Path | None:
    """Return what the run of a pre-training left, where `path` is such a run's folder."""
    file = Path(path).expanduser() / PRETRAINED_FILE
    return file if file.is_file() else None


def local_model(path: str | Path) -> Path | None:
    """Return the model folder or `.ckpt` file that a path on this disk means: itself, or a run's `model/`.

    None where there is no file or folder of that name.

    Raises:
        WeightsError: a folder without a model, or a file that is no `.ckpt`.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        for folder in (place, place / "model"):
            if (folder / CARD_FILE).is_file():
                return folder
        if pretrained_weights(place) is not None:
            raise WeightsError(
                f"{printable(place)}: a pre-training on classes of whole images, which leaves no model to predict "
                f"with; a training begins with it: model.start_from={printable(place)}"
            )
        if (place / "config.yaml").is_file():
            raise WeightsError(f"{printable(place)}: this run has no model yet (model/{CARD_FILE} is missing)")
        raise WeightsError(
            f"{printable(place)}: neither a model folder ({CARD_FILE} + {WEIGHTS_FILE}) nor a run folder"
            + _convert_hint(place)
        )
    if place.is_file():
        if place.suffix == ".ckpt":
            return place
        raise WeightsError(
            f"{printable(place)}: a weights file alone does not say what network it is for; give a run folder, a model "
            f"folder ({CARD_FILE} + {WEIGHTS_FILE}) or a .ckpt written by training; weights of another library become "
            "a model folder by: segatlas models convert FILE --out FOLDER"
        )
    return None


def _convert_hint(folder: Path) -> str:
    """Say how the weights of another library that lie in a folder become a model; "" where none do."""
    try:
        files = [file for file in folder.iterdir() if file.suffix in WEIGHTS_ENDINGS and file.is_file()]
    except OSError:
        return ""
    if not files:
        return ""
    source = printable(folder) if len(files) == 1 else "FILE"
    return f"; weights of another library in it become a model folder by: segatlas models convert {source} --out FOLDER"


def read_card(place: Path) -> Card:
    """Return the card of what `local_model` found."""
    return read_checkpoint(place)[0] if place.is_file() else Card.read(place)


def read_model(place: Path) -> tuple[Card, dict[str, Tensor]]:
    """Return card and tensors of what `local_model` found."""
    return read_checkpoint(place) if place.is_file() else read_folder(place)


def read_folder(folder: Path) -> tuple[Card, dict[str, Tensor]]:
    """Return card and tensors of a model folder, the hash checked."""
    card, file = Card.read(folder), folder / WEIGHTS_FILE
    tensors = read_state_dict(file).tensors
    if card.sha256 and sha256(file, error=WeightsError) != card.sha256:
        raise WeightsError(f"{file}: its sha256 differs from the one in {CARD_FILE}; the file was changed or damaged")
    # own memory: loaded networks stay as they are when the file is replaced or cut short
    return card, {name: tensor.clone() for name, tensor in tensors.items()}


def read_checkpoint(file: Path) -> tuple[Card, dict[str, Tensor]]:
    """Return card and network tensors of a training checkpoint; the averaged weights where it has them."""
    content = read_torch(file)
    card = content.get("card") if isinstance(content, Mapping) else None
    if not isinstance(card, Mapping):
        raise WeightsError(f"{file}: holds no card; only checkpoints written by segatlas train can be loaded this way")
    states = [content.get(key) for key in _STATES]
    weights = next((state for state in states if not isinstance(state, Mapping | None) or state), {})
    if not isinstance(weights, Mapping):
        kind = "pickled object" if isinstance(weights, Inert) else type(weights).__name__
        raise WeightsError(f"{printable(file)}: its weights are a {kind}, expected a dictionary of tensors")
    tensors = {
        name.removeprefix(_NETWORK_PREFIX): tensor.clone()
        for name, tensor in named_tensors(file, weights).items()
        if name.startswith(_NETWORK_PREFIX)
    }
    return Card.from_dict(card, where=f"{file}: card"), tensors


def plain_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict to contiguous CPU tensors of which no two share memory, as safetensors wants them."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        copy = tensor.detach().to("cpu").contiguous()
        pointer = copy.untyped_storage().data_ptr()
        plain[name] = copy.clone() if pointer in seen else copy
        seen.add(pointer)
    return plain
