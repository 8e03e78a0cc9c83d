"""Model folders (`model.safetensors` + `card.json`) and checkpoints of training: writing the one, reading both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from segatlas.checkpoint.card import CARD_FILE, WEIGHTS_FILE, Card, default_preprocessing
from segatlas.checkpoint.reading import named_tensors, read_state_dict, read_torch
from segatlas.config.messages import unknown
from segatlas.errors import UsageError, WeightsError
from segatlas.files import sha256, whole_file, whole_folder
from segatlas.models import find_entry, load_architecture
from segatlas.palette import default_palette
from segatlas.printable import printable

_STATES = ("ema_state_dict", "state_dict")
"""Where a training checkpoint has the network's tensors; the first one that is not empty is taken."""

_NETWORK_PREFIX = "net."
"""In a training checkpoint the network's tensors carry this prefix."""

_FROM_NETWORK = ("architecture", "config", "sha256", "version")
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
    folder = Path(folder)
    tensors = plain_tensors(net.state_dict())
    complete = make_card(net, classes=classes, palette=palette, card=card, **facts)
    with whole_folder(folder, error=WeightsError, replace=True) as fresh:
        with whole_file(fresh / WEIGHTS_FILE, error=None, durable=False) as file:  # with the umask's mode
            try:
                save_file(tensors, file, metadata={"format": "pt"})
            except SafetensorError as error:
                raise OSError(str(error)) from error
        text = dataclasses.replace(complete, sha256=sha256(fresh / WEIGHTS_FILE)).to_text()
        (fresh / CARD_FILE).write_text(text, encoding="utf-8")
    return folder


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
    settings = dataclasses.asdict(config)  # type: ignore[arg-type]
    channels = settings["in_channels"]
    own: dict[str, Any] = {
        "architecture": name,
        "config": settings,
        "classes": tuple(classes),
        "palette": default_palette(len(classes)) if palette is None else tuple(map(tuple, palette)),
    }
    defaults: dict[str, Any] = {
        "task": entry.tasks[0],
        "inputs": load_architecture(name).inputs(channels),
        "preprocessing": default_preprocessing(channels, *getattr(net, "encoder_statistics", ())),
        "resample": ("bilinear", bool(settings.get("align_corners", False))),
    }
    made = dataclasses.replace(card, **own, **facts) if card is not None else Card(**{**defaults, **own, **facts})
    try:
        made.check()
    except UsageError as error:
        raise UsageError(f"the card's facts contradict each other\n{error}") from None
    return made


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
        if (place / "config.yaml").is_file():
            raise WeightsError(f"{printable(place)}: this run has no model yet (model/{CARD_FILE} is missing)")
        raise WeightsError(
            f"{printable(place)}: neither a model folder ({CARD_FILE} + {WEIGHTS_FILE}) nor a run folder"
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
        kind = type(weights).__name__
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
