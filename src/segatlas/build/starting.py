"""Fine-tuning: begin with the weights of an earlier model, all but what follows from other counts of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segatlas.build.card_keys import told_words
from segatlas.build.network import build_empty
from segatlas.build.surgery import resize_alike
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.fitting import fitting, require_fit
from segatlas.checkpoint.model_folder import local_model, pretrained_weights, read_model, read_weights
from segatlas.checkpoint.validation import FieldsError
from segatlas.config.encoder_keys import HOST
from segatlas.errors import UsageError, WeightsError
from segatlas.models.architecture import flat_fields
from segatlas.models.host import host_in, with_classes
from segatlas.models.reading import load_architecture, read_config
from segatlas.printable import printable

MOST_NAMED = 6
"""Tensors of each kind of fault that are named where a file does not fit."""


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What `start_from` did.

    loaded: names of the tensors taken over.
    replaced: names of the tensors that stay new (classifiers, mostly), because the class count differs, or that of
        queries, or because the earlier model has no auxiliary heads, or a pre-training no such layers.
    left_out: of a partial start, names of the file's tensors that have no place in the network, or another shape.
    card: the card of the earlier model, whose preprocessing training takes over; None for a file without one.
    is_pretrained: whether the weights are those of a pre-training, or of the first of a network's two stages.
    """

    loaded: tuple[str, ...]
    replaced: tuple[str, ...]
    card: Card | None
    is_pretrained: bool = False
    left_out: tuple[str, ...] = ()


def start_from(net: nn.Module, path: str | Path, *, partial: bool = False) -> StartReport:
    """Copy the weights of an earlier model into `net`, strictly unless `partial`.

    Only tensors whose shape follows from the class count may differ, and only in that: classifiers, auxiliary ones
    too, and PointRend's layers over coarse logits; likewise queries, where there are others; and auxiliary heads may be
    missing, all of them. These stay as they are in `net` and are named in the report. Of what a pre-training leaves,
    or of the network that is trained first (ESPNet-C), all that it has must fit, and whatever it lacks stays new.
    Weights of the network inside a wrapper go there. Where the earlier model is a pruned one, `net` becomes as narrow.

    Args:
        net: a network of `create_model`, changed in place.
        path: a run folder, a model folder, a `.ckpt` of training, or a weights file with our names in it; what
            a name means says `hub.loading.find_start`.
        partial: take the tensors that fit, whatever else the file holds or lacks; the report names the others.

    Raises:
        UsageError: a model of another architecture.
        WeightsError: nothing usable there, or tensors that do not fit; of a partial start, if none fits.
    """
    card, tensors, where, is_pretrained = _read(path)
    part, place = _part_for(net, card, tensors)
    if card is not None and card.architecture != part.architecture:
        raise UsageError(f"{where}: holds a {card.architecture}, but the network is a {_named(net)}{_way(card)}")
    if (first := _of_first_stage(part, card, tensors)) is not None:
        if card is not None and card.surgery:
            raise UsageError(f"{where}: a pruned {card.architecture}, which no second stage can be built around")
        tensors, is_pretrained = first, True
    elif card is not None:
        _cut_alike(part, card, where)
    if partial:
        return _partial_start(part, place, card, tensors, where)
    missing = [name for name in part.state_dict() if name not in tensors] if is_pretrained else []
    loaded, replaced = _load(part, card, tensors, where, missing)
    return StartReport(
        loaded=tuple(place + name for name in loaded), replaced=tuple(place + name for name in replaced), card=card,
        is_pretrained=is_pretrained,
    )  # fmt: skip


def _partial_start(
    net: nn.Module, place: str, card: Card | None, tensors: dict[str, Tensor], where: str
) -> StartReport:
    """Copy what fits of a file. place: what the names of the network's tensors begin with."""
    expected = net.state_dict()
    names = fitting(expected, tensors)
    if not names:
        raise WeightsError(f"{printable(where)}: none of its {len(tensors)} tensors fits the {net.architecture}")
    net.load_state_dict({name: tensors[name] for name in names}, strict=False)
    return StartReport(
        loaded=tuple(place + name for name in names),
        replaced=tuple(place + name for name in expected if name not in names),
        card=card,
        left_out=tuple(name for name in tensors if name not in names),
    )


def _cut_alike(net: nn.Module, card: Card, where: str) -> None:
    """Make a network as narrow as a pruned one that its weights come from."""
    if not card.surgery:
        return
    record = load_architecture(card.architecture)
    config, problems = read_config(record, card.config)
    if problems:
        raise WeightsError(f"{where}: the card's network cannot be built\n{FieldsError(problems)}")
    try:
        resize_alike(net, card.surgery, build_empty(record, config), where=where)
    except WeightsError as error:
        raise WeightsError(f"{error}{_differences(net, card)}") from None


def _part_for(net: nn.Module, card: Card | None, tensors: dict[str, Tensor]) -> tuple[nn.Module, str]:
    """Return the network, or that inside it, that weights are for, and what the names of its tensors begin with."""
    part, place = net, ""
    while (host := host_in(part)) is not None:
        of_host = card.architecture != part.architecture if card else not any(n.startswith(f"{HOST}.") for n in tensors)
        if not of_host:
            break
        part, place = host, f"{place}{HOST}."
    return part, place


def _of_first_stage(net: nn.Module, card: Card | None, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors of the network that is trained before this one, as they are called here; None of any other.

    What moves to another place stays behind where it does not fit there: classifiers of other classes.
    """
    names: Any = getattr(net, "names_of_first_stage", None)
    moved: dict[str, str] | None = None if card is None or names is None else names(card.config)
    if moved is None:
        return None
    ours = net.state_dict()
    return {
        moved.get(name, name): tensor
        for name, tensor in tensors.items()
        if name not in moved or tensor.shape == ours[moved[name]].shape
    }


def _named(net: nn.Module) -> str:
    host = host_in(net)
    return str(net.architecture) if host is None else f"{net.architecture} around a {_named(host)}"


def _load(
    net: nn.Module, card: Card | None, tensors: dict[str, Tensor], where: str, missing: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy tensors into a network; return the names of those taken over and of those that stay new.

    missing: names that the file lacks on purpose.
    """
    expected = net.state_dict()
    differing = [name for name, tensor in expected.items() if name in tensors and tensor.shape != tensors[name].shape]
    replaced = _of_other_counts(net, card, differing, tensors, where) if differing else []
    heads = _of_heads_for_training(net, tensors)
    if heads and card is not None and card.surgery:
        raise UsageError(
            f"{where}: a pruned network without auxiliary heads, which cannot get new ones; set model.aux=false"
        )
    replaced += missing or heads
    kept = {name: tensor for name, tensor in expected.items() if name not in replaced}
    taken = {name: tensor for name, tensor in tensors.items() if name not in replaced}
    try:
        require_fit(kept, taken, where=where, network=f"the {net.architecture}", shown=MOST_NAMED)
    except WeightsError as error:
        fit = len(fitting(kept, taken))
        other = f"\n  --partial (model.start_partial=true) takes the {fit} that fit, and names the rest" if fit else ""
        raise WeightsError(f"{error}{_differences(net, card)}{other}") from None
    net.load_state_dict(taken, strict=False)
    return tuple(taken), tuple(replaced)


def _read(path: str | Path) -> tuple[Card | None, dict[str, Tensor], str, bool]:
    """Return card, tensors, where they were found, and whether a pre-training has left them."""
    file = pretrained_weights(path) or Path(path).expanduser()
    if file.is_file() and file.suffix != ".ckpt":
        card, tensors = read_weights(file)
        return card, tensors, str(file), card is not None
    place = local_model(path)
    if place is None:
        raise WeightsError(
            f"{printable(path)}: no such file or folder; what is published under a name is fetched by "
            "segatlas.hub.loading.find_start(NAME)"
        )
    card, tensors = read_model(place)
    return card, tensors, str(place), False


def _of_other_counts(
    net: nn.Module, card: Card | None, names: list[str], tensors: dict[str, Tensor], where: str
) -> list[str]:
    """Return those of `names` whose shape in the file differs only along axes that follow from the class count.

    Which axes those are is seen from the same network with one class more: of stuff, too, where it counts that apart.
    Where there are queries, their number may be another one, too.
    """
    config: Any = net.config
    changed = [with_classes(config, config.num_classes + 1)]
    if "stuff" in flat_fields(config):
        changed.append(replace(changed[0], stuff=config.stuff + 1, stuff_classes=None))
    if "queries" in flat_fields(config):
        changed.append(replace(changed[0], queries=config.queries + 1))
    record = load_architecture(str(net.architecture))
    networks = [build_empty(record, one) for one in changed]
    if card is not None:
        for one in networks:
            _cut_alike(one, card, where)
    larger = [one.state_dict() for one in networks]
    ours = net.state_dict()
    return [
        name for name in names if _differs_only_in_classes(ours[name], [one[name] for one in larger], tensors[name])
    ]


def _of_heads_for_training(net: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Return the names of what only training has, the auxiliary heads, where the file has none of it."""
    config: Any = net.config
    if not getattr(config, "aux", False) or net.state_dict().keys() <= tensors.keys():
        return []
    deployed = build_empty(load_architecture(str(net.architecture)), replace(config, aux=False)).state_dict()
    heads = [name for name in net.state_dict() if name not in deployed]
    return [] if any(name in tensors for name in heads) else heads


def _differs_only_in_classes(ours: Tensor, larger: Sequence[Tensor], found: Tensor) -> bool:
    """Tell whether a tensor has another size only along axes along which one of the larger ones differs, too."""
    if ours.ndim != found.ndim:
        return False
    free = [any(one.shape[axis] != ours.shape[axis] for one in larger) for axis in range(ours.ndim)]
    return all(a == c or is_free for a, c, is_free in zip(ours.shape, found.shape, free, strict=True))


def _differences(net: nn.Module, card: Card | None) -> str:
    """Name the config fields in which file and network differ: most often the reason why tensors do not fit."""
    if card is None:
        return ""
    config, problems = read_config(load_architecture(str(net.architecture)), card.config)
    if problems:
        return ""
    theirs = flat_fields(config)
    differing = [
        f"{name} = {theirs.get(name)!r} in the file, {value!r} here"
        for name, value in flat_fields(net.config).items()
        if name != "num_classes" and theirs.get(name) != value
    ]
    return f"\n  config differs: {'; '.join(differing)}{_way(card)}" if differing else ""


def _way(card: Card) -> str:
    """Return the words by which a recipe has the network of the file."""
    words = told_words(card)
    return f"\n  the file's network: {words}\n  (segatlas train FOLDER model.start_from=... sets these by itself)"
