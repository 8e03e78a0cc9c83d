"""Fine-tuning: begin with the weights of an earlier model, all but the classifier of another class count."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from segatlas.errors import WeightsError
from segatlas.weights.card import Card
from segatlas.weights.fitting import require_fit
from segatlas.weights.reading import read_state_dict
from segatlas.weights.saving import find_model, read_checkpoint, read_folder


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What `start_from` did.

    loaded: names of the tensors taken over.
    replaced: names of the classifier tensors that stay new, because the class count differs.
    card: the card of the earlier model, whose preprocessing training takes over; None for a file without one.
    """

    loaded: tuple[str, ...]
    replaced: tuple[str, ...]
    card: Card | None


def start_from(net: nn.Module, path: str | Path) -> StartReport:
    """Copy the weights of an earlier model into `net`, strictly.

    Only classifiers (tensors of a module called `classifier`, auxiliary ones too) may differ, and only in their class
    count; those stay as they are in `net` and are named in the report.

    Args:
        net: a network of `create_model`, changed in place.
        path: a run folder, a model folder, a `.ckpt` of training, a hub id, or a weights file with our names in it.

    Raises:
        WeightsError: nothing usable there, another architecture, or tensors that do not fit.
    """
    card, tensors, where = _read(path)
    if card is not None and card.architecture != net.architecture:
        raise WeightsError(f"{where}: holds a {card.architecture}, but the network is a {net.architecture}")
    expected = net.state_dict()
    replaced = [name for name, tensor in expected.items() if name in tensors and _other_count(name, tensor, tensors)]
    kept = {name: tensor for name, tensor in expected.items() if name not in replaced}
    taken = {name: tensor for name, tensor in tensors.items() if name not in replaced}
    try:
        require_fit(kept, taken, where=where, network=f"the {net.architecture}")
    except WeightsError as error:
        raise WeightsError(f"{error}{_differences(net, card)}") from None
    net.load_state_dict(taken, strict=False)
    return StartReport(loaded=tuple(taken), replaced=tuple(replaced), card=card)


def _read(path: str | Path) -> tuple[Card | None, dict[str, Tensor], str]:
    file = Path(path).expanduser()
    if file.is_file() and file.suffix != ".ckpt":
        return None, read_state_dict(file).tensors, str(file)
    place = find_model(path)
    card, tensors = read_checkpoint(place) if place.is_file() else read_folder(place)
    return card, tensors, str(place)


def _other_count(name: str, tensor: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Tell whether `name` is a classifier's tensor whose file version has another number of classes (first axis)."""
    found = tensors[name]
    return "classifier" in name.split(".") and tensor.shape != found.shape and tensor.shape[1:] == found.shape[1:]


def _differences(net: nn.Module, card: Card | None) -> str:
    """Name the config fields in which file and network differ: most often the reason why tensors do not fit."""
    if card is None:
        return ""
    ours = json.loads(json.dumps(asdict(net.config)))  # type: ignore[call-overload]
    theirs = card.config
    differing = [
        f"{name} = {theirs.get(name)!r} in the file, {value!r} here"
        for name, value in ours.items()
        if name != "num_classes" and theirs.get(name) != value
    ]
    return f"\n  config differs: {'; '.join(differing)}" if differing else ""
