"""Model folders: `model.safetensors` + `card.json`. Writing one, and finding and loading one."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from segatlas.config.messages import unknown
from segatlas.errors import UsageError, WeightsError
from segatlas.files import sha256, whole_file, whole_folder
from segatlas.models import load_architecture
from segatlas.models.architecture import Architecture
from segatlas.palette import default_palette
from segatlas.printable import printable
from segatlas.weights.building import build_empty, build_network
from segatlas.weights.card import CARD_FILE, WEIGHTS_FILE, Card, default_preprocessing
from segatlas.weights.catalogue import is_published, nearest_published
from segatlas.weights.fetching import fetch_published
from segatlas.weights.fitting import require_finite, require_fit
from segatlas.weights.hostile import told_as_weights_error
from segatlas.weights.hub import fetch_folder
from segatlas.weights.listing import find_entry
from segatlas.weights.reading import named_tensors, read_state_dict, read_torch
from segatlas.weights.validation import validated

_STATES = ("ema_state_dict", "state_dict")
"""Where a training checkpoint has the network's tensors; the first one that is not empty is taken."""

_NETWORK_PREFIX = "net."
"""In a training checkpoint the network's tensors carry this prefix."""

_FROM_NETWORK = ("architecture", "config", "sha256", "version")
"""Fields of a card that are never given by hand."""

_COMPUTED_BYTES = 1 << 28
"""Bytes that a network's computed buffers may have beside small weights."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


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


def load_pretrained(path: str | Path, *, offline: bool = False, commercial_ok: bool = False) -> tuple[nn.Module, Card]:
    """Load a network with its card, on the CPU in eval mode.

    Args:
        path: a run folder, a model folder, a `.ckpt` written by training (its averaged weights where it has them), a
            name of the catalogue, or a hub id `user/name`.
        offline: download nothing; so does `SEGATLAS_OFFLINE`, set to anything but 0.
        commercial_ok: refuse weights whose licence is known to forbid commercial use.

    Raises:
        WeightsError: nothing usable there, weights that do not fit the card's network, or a hash that differs.
    """
    place = find_model(path, offline=offline, commercial_ok=commercial_ok)
    card, tensors = read_checkpoint(place) if place.is_file() else read_folder(place)
    if commercial_ok and "non-commercial" in card.licence.lower():
        raise WeightsError(
            f"{printable(path)}: refused, commercial use is asked for, but its licence is: {card.licence}"
        )
    return assemble(card, tensors, where=str(place)), card


def find_model(path: str | Path, *, offline: bool = False, commercial_ok: bool = False) -> Path:
    """Return the model folder or `.ckpt` file that `path` means: itself, a run's `model/`, or something fetched.

    Args:
        path: a file or folder, a name of the catalogue (`segatlas models list --published`), or a hub id.
        offline: fetch nothing; so does `SEGATLAS_OFFLINE`, set to anything but 0.
        commercial_ok: refuse catalogue weights whose licence forbids commercial use.

    Raises:
        WeightsError: no such file, folder or name; a folder without a model; or it cannot be fetched.
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
    if is_published(str(path)):
        return fetch_published(str(path), offline=offline, commercial_ok=commercial_ok)
    if not os.path.lexists(place) and _HUB_ID.fullmatch(str(path)):
        return fetch_folder(str(path), offline=offline)
    near = nearest_published(str(path))
    raise WeightsError(
        f"{printable(path)}: no such file or folder" + (f"; published weights like it: {near}" if near else "")
    )


def read_card(place: Path) -> Card:
    """Return the card of what `find_model` found."""
    return read_checkpoint(place)[0] if place.is_file() else Card.read(place)


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


def assemble(card: Card, tensors: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Build the card's network around `tensors`, without drawing random weights first. Returned in eval mode.

    Raises:
        WeightsError: unknown architecture, invalid config, or tensors that do not fit.
    """
    with told_as_weights_error(f"{where}: the card's network cannot be built"):
        architecture = load_architecture(find_entry(card.architecture)[0].name)
        config: Any = validated(architecture.config, card.config)
    return filled(architecture, config, tensors, where=where, network=f"the {card.architecture} of its card")


def filled(
    architecture: Architecture, config: Any, tensors: Mapping[str, Tensor], *, where: str, network: str
) -> nn.Module:
    """Build a network around `tensors`, without drawing random weights first. Returned in eval mode.

    Args:
        architecture: the record.
        config: its config dataclass.
        tensors: the state dict; the network keeps those that have its precision, and copies of others.
        where: the file, named in errors.
        network: what the network is, named in errors.

    Raises:
        WeightsError: tensors that do not fit, or hold NaN or infinite values.
    """
    with told_as_weights_error(f"{where}: {network} cannot be built"):
        net = build_empty(architecture, config, tensors=len(tensors))
    expected = net.state_dict()
    require_fit(expected, tensors, where=where, network=network)
    require_finite(tensors, where=where)
    computed = [buffer for name, buffer in net.named_buffers() if name not in expected]
    if computed:  # they need a real network
        _require_computable(computed, tensors, where=where, network=network)
        with told_as_weights_error(f"{where}: {network} cannot be built"):
            net = build_network(architecture, config)
    net.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}, assign=True)
    return net.eval()


def _require_computable(buffers: Sequence[Tensor], tensors: Mapping[str, Tensor], *, where: str, network: str) -> None:
    """Raise WeightsError where buffers that are computed, not stored, would be out of proportion to the weights."""
    needed, stored = (sum(t.numel() * t.itemsize for t in group) for group in (buffers, tensors.values()))
    if needed > max(_COMPUTED_BYTES, 8 * stored):
        raise WeightsError(f"{where}: {network} needs tables of {needed:,} bytes beside {stored:,} bytes of weights")


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
