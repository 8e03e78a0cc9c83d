"""Convert weights that other libraries wrote to a model folder of ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segatlas.build.assembling import assemble, filled
from segatlas.build.network import build_empty, make_config
from segatlas.build.saving import make_card
from segatlas.checkpoint.card import CARD_FILE, WEIGHTS_FILE, Card
from segatlas.checkpoint.fitting import require_fit
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.model_folder import (
    PRETRAINED_FILE,
    plain_tensors,
    read_model,
    write_model,
    write_pretrained,
)
from segatlas.checkpoint.prefixes import PrefixedTensors
from segatlas.checkpoint.preprocessing import InferenceMode, Preprocessing, default_preprocessing
from segatlas.config.objects import rule_of
from segatlas.conversion.backbones import BackboneFile, find_backbone
from segatlas.conversion.class_lists import class_list
from segatlas.conversion.importers import SOURCES, importers, load_source
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.sidecar import find_weights
from segatlas.conversion.importers.source import Facts
from segatlas.conversion.one_logit import colors_of_two, names_of_two, note_of, require_second_class, with_background
from segatlas.conversion.recognition import Match, find_importer
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs, with_counters
from segatlas.errors import SegAtlasError, UsageError, WeightsError
from segatlas.files import sha256, sweep_leftovers, whole_file
from segatlas.models.architecture import Architecture, flat_fields
from segatlas.printable import printable

_TRAINING_ONLY = ("dropout", "drop_path", "decoder_drop_path")
"""Fields of configs that say nothing about a network in eval mode."""

_MOST_STATISTICS = 100
"""Numbers in a tensor of means or deviations at most: one a channel."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What `convert_file` did.

    folder: the model folder. file: the weights file. library: a key of `SOURCES`, whose weights they are; title: what
    people call it. card: as it was written. settings_from: where the library's own configuration was found, "" where
    it was not. prefix: what stands before all names of the network in the file. left_out: what is beside it and no part
    of a network. notes: what was taken by default because neither the weights nor any settings tell it.
    """

    folder: Path
    file: Path
    library: str
    title: str
    card: Card
    settings_from: str
    tensors: int
    prefix: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What `export_file` did: the file, what people call the library, and notes about what the file cannot tell."""

    file: Path
    title: str
    tensors: int
    notes: tuple[str, ...]


def convert_file(
    source: str | Path,
    out: str | Path,
    *,
    arch: str | None = None,
    config: str | Path | None = None,
    stated: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Conversion:
    """Convert weights of another library to a model folder, and tell what was found.

    Args:
        source: a weights file (torch, either format, or safetensors), or a folder with one. Nothing that stands in it
            is executed.
        out: the folder to write.
        arch: our name of the architecture, where several fit the file; None = recognise it.
        config: the library's own configuration, for what weights cannot tell (a config.py of MMSegmentation, a
            config.json of Hugging Face); None = what the file itself holds, else a sidecar file that agrees with the
            weights, else the published defaults.
        stated: dotted path in that configuration -> value, laid over what was found of it.
        facts: further fields of the card.

    Raises:
        WeightsError: not readable, not recognised, several architectures fit, or tensors that do not fit.
        UsageError: unknown architecture, or a model of ours.

    A backbone alone becomes no model: the folder then holds what `start_from` takes, see `conversion.backbones`.
    """
    path = find_weights(Path(source).expanduser())
    if path.name == WEIGHTS_FILE and path.with_name(CARD_FILE).is_file():
        raise UsageError(
            f"{printable(path.parent)}: is a model of SegAtlas already; load it as it is (--to converts it)"
        )
    settings_file = None if config is None else Path(config).expanduser()
    try:
        found = find_importer(path, arch=arch, config=settings_file, stated=stated)
    except WeightsError:
        if (backbone := find_backbone(path)) is None:
            raise
        return _keep_backbone(backbone, Path(out))
    importer, title, part = found.recognised.importer, found.source.title, found.part
    with told_as_weights_error(f"{printable(path)}: {_looks_like(found)} cannot be built"):
        architecture, settings = make_config(importer.architecture, found.recognised.fields)
        tensors = rename_to_ours(importer, settings, part.inside)
    with told_as_weights_error(f"{printable(path)}: the settings of {title} ({found.settings_from}) cannot be used"):
        own = importer.facts
        told = found.source.facts(found.read.meta, found.settings) if own is None else own(settings, found.settings)
    settings, net, told = _network(found, architecture, settings, with_counters(tensors), told)
    described, notes = _card_facts(settings, told, part)
    if found.recognised.threshold is not None:
        notes.insert(0, note_of(described["classes"], found.recognised.threshold))
    if importer.preprocessing is not None and not found.settings:
        described["preprocessing"] = importer.preprocessing(settings)
    if importer.resize is not None and described["preprocessing"].resize is None:
        described["preprocessing"] = replace(described["preprocessing"], resize=importer.resize)
    described["objects"] = rule_of(vars(net.config), importer.objects)
    described["things"] = getattr(net, "things", ())
    seen = ForeignWeights(tensors=part.inside, settings=found.settings, file=path.name)
    described |= importer.card_fields(seen, settings)
    notes += seen.notes
    hashed = sha256(path, error=WeightsError)
    card = make_card(net, source=f"{title}: {path.name}, sha256 {hashed}", **{**described, **facts})
    require_second_class(card, where=str(path))
    folder = Path(out)
    card = write_model(folder, card, net.state_dict())
    return Conversion(
        folder=folder,
        file=path,
        library=found.source.name,
        title=title,
        card=card,
        settings_from=", ".join(filter(None, (found.settings_from, "--set" if stated else ""))),
        tensors=len(part.inside),
        prefix=part.prefix,
        left_out=(*part.extras, *(f"all of {key}" for key in found.read.others)),
        notes=(*found.recognised.notes, *notes),
    )


def _looks_like(found: Match) -> str:
    return f"the {found.recognised.importer.architecture} of {found.source.title} that it looks like"


def _network(
    found: Match, architecture: Architecture, config: Any, tensors: Mapping[str, Tensor], told: Facts
) -> tuple[Any, nn.Module, Facts]:
    """Return the config, the network and what is told of it; of one logit a pixel they are made for two classes."""
    where, threshold = str(found.path), found.recognised.threshold
    if threshold is None:
        return config, filled(architecture, config, tensors, where=where, network=_looks_like(found)), told
    config, net = with_background(architecture, config, tensors, threshold, where=where, network=_looks_like(found))
    return config, net, replace(told, classes=names_of_two(told.classes), palette=colors_of_two(told.palette))


def _keep_backbone(found: BackboneFile, folder: Path) -> Conversion:
    """Write what a training begins with, for no network can be predicted with that has no head."""
    title = f"{found.title}: {found.path.name}, sha256 {sha256(found.path, error=WeightsError)}"
    card = replace(found.card, source=title)
    folder.mkdir(parents=True, exist_ok=True)
    write_pretrained(folder / PRETRAINED_FILE, card, found.tensors)
    return Conversion(
        folder=folder,
        file=found.path,
        library=found.library,
        title=found.title,
        card=card,
        settings_from="",
        tensors=len(found.tensors),
        prefix="",
        left_out=found.left_out,
        notes=(f"{found.variant} without its heads: a training begins with it, model.start_from={printable(folder)}",),
    )


def export_file(place: Path, out: str | Path, *, to: str) -> Export:
    """Write a model of ours as a file that another library loads.

    Args:
        place: a model folder, or a `.ckpt` written by training.
        out: the file.
        to: the library, a key of `SOURCES`.

    Raises:
        UsageError: no such library, or it has no such architecture.
        WeightsError: no model there, a network that the library cannot build, or the file cannot be written.
    """
    if to not in SOURCES:
        raise UsageError(f"to: got {to!r}, expected one of {', '.join(SOURCES)}")
    out, library = Path(out).expanduser(), load_source(to)
    card, tensors = read_model(place)
    if card.surgery:
        raise WeightsError(
            f"{printable(place)}: a pruned network, {len(card.surgery)} layers of it are narrower than any "
            f"{card.architecture} of {library.title}, which could not load it"
        )
    net = assemble(card, tensors, where=str(place))
    config: Any = net.config
    theirs, read_back = _written(to, card.architecture, config, net.state_dict())
    content = library.content(plain_tensors(theirs), card)
    sweep_leftovers(out.parent, out.name)
    with whole_file(out, error=WeightsError) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # so torch says that a disk is full
            raise OSError(str(error)) from error
    untold = {name: value for name, value in flat_fields(config).items() if flat_fields(read_back)[name] != value}
    untold = {name: value for name, value in untold.items() if name.rpartition(".")[2] not in _TRAINING_ONLY}
    told = ", ".join(f"{name}={value!r}" for name, value in untold.items())
    notes = (f"the file cannot tell, see to it in the configuration of {library.title}: {told}",) if told else ()
    return Export(file=out, title=library.title, tensors=len(theirs), notes=notes)


def tensors_of(library: str, architecture: str, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors of a network under a library's names, in its layout.

    Raises:
        UsageError: the library has no such architecture.
        WeightsError: it has no network of this config.
    """
    return _written(library, architecture, config, tensors)[0]


def _written(
    library: str, architecture: str, config: Any, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Any]:
    """Return what `tensors_of` does, and the config that we should read from it without further settings."""
    title, able = load_source(library).title, importers(library, architecture)
    if not able:
        known = sorted({importer.architecture for importer in importers(library)})
        raise UsageError(f"no {architecture} is written for {title}; it takes {', '.join(known)}")
    faults = []
    for importer in able:
        try:
            theirs = rename_to_theirs(importer, config, tensors)
            fields = importer.recognise(ForeignWeights(tensors=theirs))
            if fields is None:
                raise WeightsError("its tensors would not be recognised there")
            record, read_back = make_config(architecture, fields)
            ours = rename_to_ours(importer, read_back, theirs)
            require_fit(build_empty(record, read_back).state_dict(), ours, where="the file", network="that network")
        except SegAtlasError as error:
            faults.append(str(error))
        else:
            return theirs, read_back
    raise WeightsError(f"{title} has no such {architecture}: {'; '.join(dict.fromkeys(faults))}")


def _card_facts(config: Any, facts: Facts, part: PrefixedTensors) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a card, and notes about those taken by default or from tensors beside the network."""
    listed = class_list(config.num_classes, facts.classes, facts.palette, facts.data_set)
    notes = [listed.note] if listed.note else []
    preprocessing = facts.preprocessing
    if preprocessing is None:
        preprocessing, note = _statistics_in_file(part, config.in_channels)
        notes += [note] if note else []
    if preprocessing is None or len(preprocessing.mean) != config.in_channels:
        preprocessing = default_preprocessing(config.in_channels)
        notes.append("mean and std are ImageNet's (published default; the weights do not tell)")
    inference = facts.inference or InferenceMode()
    described = {
        "classes": listed.classes,
        "palette": listed.palette,
        "preprocessing": preprocessing,
        "inference": inference,
        "licence": facts.licence,
    }
    return described, notes


def _statistics_in_file(part: PrefixedTensors, channels: int) -> tuple[Preprocessing | None, str]:
    """Return mean and std of images that lie as tensors beside a network, and a note; None where none can be used."""
    found: dict[str, tuple[float, ...]] = {}
    for name, tensor in part.extras.items():
        kind = name.rpartition(".")[2].removeprefix("pixel_")
        if kind in ("mean", "std") and tensor.is_floating_point() and tensor.numel() <= _MOST_STATISTICS:
            found[kind] = tuple(tensor.flatten().tolist())
    if found.keys() != {"mean", "std"}:
        return None, ""
    values = (*found["mean"], *found["std"])
    largest = next((limit for limit in (1, 255) if all(abs(value) <= limit for value in values)), 0)
    if not largest or min(found["std"], default=0) <= 0 or any(len(found[kind]) != channels for kind in found):
        expected = f"{channels} of each, of values 0..1 or 0..255"
        return None, f"mean and std that lie beside the network in the file are not used (expected {expected})"
    mean, std = (tuple(round(value / largest, 6) for value in found[kind]) for kind in ("mean", "std"))
    note = f"mean and std are those that lie beside the network in the file, of values 0..{largest}"
    return Preprocessing(mean=mean, std=std), note
