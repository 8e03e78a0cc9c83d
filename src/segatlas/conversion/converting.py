"""Convert weights that other libraries wrote to a model folder of ours, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segatlas.build.assembling import assemble, filled
from segatlas.build.network import build_empty, make_config
from segatlas.checkpoint.card import Card, InferenceMode, Preprocessing, default_preprocessing
from segatlas.checkpoint.fitting import require_fit
from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.model_folder import plain_tensors, read_model, save_pretrained
from segatlas.checkpoint.prefixes import PrefixedTensors, averaged, parts
from segatlas.checkpoint.reading import ReadWeights, read_state_dict
from segatlas.conversion.class_lists import class_list
from segatlas.conversion.importers import SOURCES, importers, load_source
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import to_ours, to_theirs
from segatlas.conversion.importers.sidecar import find_settings, find_weights
from segatlas.conversion.importers.source import Facts, Library
from segatlas.conversion.importers.stacks import stack_to_ours, stack_to_theirs
from segatlas.errors import SegAtlasError, UsageError, WeightsError
from segatlas.files import sha256, sweep_leftovers, whole_file
from segatlas.models import find_entry
from segatlas.printable import printable, shortened

_TRAINING_ONLY = ("dropout", "drop_path")
"""Fields of configs that say nothing about a network in eval mode."""

_MOST_STATISTICS = 100
"""Numbers in a tensor of means or deviations at most: one a channel."""

_SHOWN = 6
"""Names listed of a file that is not recognised."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """An importer that fits a file: the fields of the config that it read there, and what it took by default."""

    importer: Importer
    fields: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """A file with the one importer that fits it.

    part: the tensors that it fits, below a prefix of the file's names, and what is beside them.
    settings: the library's own configuration, {} where there is none; settings_from says where it was found.
    """

    path: Path
    read: ReadWeights
    part: PrefixedTensors
    source: Library
    recognised: Recognised
    settings: Mapping[str, Any]
    settings_from: str


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
    source: str | Path, out: str | Path, *, arch: str | None = None, config: str | Path | None = None, **facts: Any
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
        facts: further fields of the card.

    Raises:
        WeightsError: not readable, not recognised, several architectures fit, or tensors that do not fit.
        UsageError: unknown architecture.
    """
    path = find_weights(Path(source).expanduser())
    found = find_importer(path, arch=arch, config=None if config is None else Path(config).expanduser())
    importer, title, part = found.recognised.importer, found.source.title, found.part
    network = f"the {importer.architecture} of {title} that it looks like"
    with told_as_weights_error(f"{printable(path)}: {network} cannot be built"):
        architecture, settings = make_config(importer.architecture, found.recognised.fields)
        tensors = rename_to_ours(importer, settings, part.inside)
    with told_as_weights_error(f"{printable(path)}: the settings of {title} ({found.settings_from}) cannot be used"):
        told = found.source.facts(found.read.meta, found.settings)
    net = filled(architecture, settings, with_counters(tensors), where=str(path), network=network)
    described, notes = _card_facts(settings, told, part)
    hashed = sha256(path, error=WeightsError)
    folder = save_pretrained(net, out, source=f"{title}: {path.name}, sha256 {hashed}", **{**described, **facts})
    return Conversion(
        folder=folder,
        file=path,
        library=found.source.name,
        title=title,
        card=Card.read(folder),
        settings_from=found.settings_from,
        tensors=len(part.inside),
        prefix=part.prefix,
        left_out=(*part.extras, *(f"all of {key}" for key in found.read.others)),
        notes=(*found.recognised.notes, *notes),
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
    untold = {name: value for name, value in asdict(config).items() if getattr(read_back, name) != value}
    untold = {name: value for name, value in untold.items() if name not in _TRAINING_ONLY}
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


def find_importer(path: Path, *, arch: str | None = None, config: Path | None = None) -> Match:
    """Read a weights file and find the importer that fits it.

    Raises:
        WeightsError: not readable, none fits, or several do.
        UsageError: an architecture that is not known, or for which no weights can be read.
    """
    if arch is not None:
        arch = find_entry(arch)[0].name
        if not importers(architecture=arch):
            raise UsageError(f"no weights of other libraries can be read for '{arch}'; {_readable()}")
    read = read_state_dict(path)
    found: list[Match] = []
    faults: list[str] = []
    for part in parts(read.tensors):
        if not any(one.part.prefix and part.prefix.startswith(one.part.prefix) for one in found):
            found += _fitting(path, read, part, arch, config, faults)
        if any(not one.part.prefix for one in found):
            break
    if not found:
        raise WeightsError(_not_recognised(path, read.tensors, list(dict.fromkeys(faults)), arch))
    if config is not None and not any(one.settings_from for one in found):
        raise UsageError(f"config: {config} is no configuration of {found[0].source.title}, of which the weights are")
    found = _of_one_prefix(path, found)
    if len(found) > 1:
        names = sorted(f"{one.recognised.importer.architecture} ({one.source.title})" for one in found)
        raise WeightsError(
            f"{printable(path)}: several architectures fit: {', '.join(names)}; choose one with --arch (arch=)"
        )
    return found[0]


def _fitting(
    path: Path, read: ReadWeights, part: PrefixedTensors, arch: str | None, config: Path | None, faults: list[str]
) -> list[Match]:
    """Return what fits the part of a file, of every library; faults that are met are added to `faults`."""
    found = []
    inside = replace(read, tensors=part.inside)
    for library in SOURCES:
        source = load_source(library)
        try:
            if not _may_fit(part.inside, arch=arch, source=library):
                continue
            with told_as_weights_error("its settings cannot be used"):
                settings = find_settings(source, path, inside, config)
            fitting = recognise(part.inside, settings.values, arch=arch, source=library)
        except SegAtlasError as error:
            faults.append(f"  {source.title}: {error}")
            continue
        for one in fitting:
            noted = Recognised(importer=one.importer, fields=one.fields, notes=(*settings.notes, *one.notes))
            where, values = settings.where, settings.values
            found.append(
                Match(
                    path=path,
                    read=read,
                    part=part,
                    source=source,
                    recognised=noted,
                    settings=values,
                    settings_from=where,
                )
            )
    return found


def _of_one_prefix(path: Path, found: list[Match]) -> list[Match]:
    """Return what was found below one prefix: the only one, or that of averaged weights beside the others.

    Raises:
        WeightsError: several networks, or tensors beside the network that may be a part of it.
    """
    prefixes = list(dict.fromkeys(one.part.prefix for one in found))
    chosen = prefixes
    if len(prefixes) > 1:
        same = len({frozenset(one.part.inside) for one in found}) == 1
        chosen = averaged(prefixes) if same else prefixes
    if len(chosen) != 1:
        listed = ", ".join(f"'{prefix}'" for prefix in prefixes)
        raise WeightsError(
            f"{printable(path)}: holds several networks, below the names {listed}; save one of them alone"
        )
    others = [prefix for prefix in prefixes if prefix != chosen[0]]
    kept = [one for one in found if one.part.prefix == chosen[0]]
    strangers = [name for name in kept[0].part.strangers() if not name.startswith(tuple(others))]
    if strangers:
        shown = ", ".join(map(shortened, strangers[:_SHOWN])) + (", ..." if len(strangers) > _SHOWN else "")
        raise WeightsError(
            f"{printable(path)}: below '{chosen[0]}' are tensors of a {kept[0].recognised.importer.architecture} of "
            f"{kept[0].source.title}, but beside them are {len(strangers)} that may be a part of it: {shown}; save the "
            "network alone"
        )
    return kept


def recognise(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], *, arch: str | None = None, source: str | None = None
) -> list[Recognised]:
    """Return every importer whose fingerprint fits the tensors.

    Raises:
        SegAtlasError: none fits, and one met a fault after the fingerprint had fitted.
    """
    found, faults = [], []
    for importer in importers(source, arch):
        file = ForeignWeights(tensors=tensors, settings=settings)
        try:
            with told_as_weights_error(f"tensors or settings that no {importer.architecture} has"):
                fields = importer.recognise(file)
        except SegAtlasError as error:
            faults.append(error)
            continue
        if fields is not None:
            found.append(Recognised(importer=importer, fields=fields, notes=tuple(file.notes)))
    if faults and not found:
        raise faults[0]
    return found


def _may_fit(tensors: Mapping[str, Tensor], *, arch: str | None, source: str) -> bool:
    """Tell whether a fingerprint of a library fits; settings may be needed for the rest."""
    try:
        return bool(recognise(tensors, {}, arch=arch, source=source))
    except SegAtlasError:
        return True


def rename_to_ours(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names, in our layout. Names without a rename stay, for `require_fit` to report."""
    renames, changes = importer.renames(config), importer.changes(config)
    kept = {name: tensor for name, tensor in tensors.items() if not _begins(name, importer.dropped)}
    stacked, others = stack_to_ours(kept, importer.stacks(config))
    ours = {to_ours(name, renames) or name: tensor for name, tensor in others.items()} | stacked
    return {name: changes[name][0](tensor) if name in changes else tensor for name, tensor in ours.items()}


def rename_to_theirs(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors under their names, in their layout. WeightsError where the table lacks a name."""
    renames, changes = importer.renames(config), importer.changes(config)
    laid_out = {name: changes[name][1](tensor) if name in changes else tensor for name, tensor in tensors.items()}
    stacked, others = stack_to_theirs(laid_out, importer.stacks(config))
    theirs: dict[str, Tensor] = dict(importer.constants(config))
    for name, tensor in others.items():
        new = to_theirs(name, renames)
        if new is None:
            raise WeightsError(f"{name}: {importer.source} has no such tensor in a {importer.architecture}")
        theirs[new] = tensor
    return theirs | stacked


def _begins(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in beginnings)


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, and batch norm's counters where a file has none at all.

    Files written before torch 0.4.1 have no `num_batches_tracked`; torch itself takes 0 for it, too.
    """
    whole = dict(tensors)
    if not any(name.endswith("num_batches_tracked") for name in whole):
        means = [name for name in whole if name.endswith(".running_mean")]
        whole |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    return whole


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


def _not_recognised(path: Path, tensors: Mapping[str, Tensor], faults: list[str], arch: str | None) -> str:
    prefixes = Counter(name.partition(".")[0] for name in tensors)
    seen = ", ".join(f"{shortened(prefix)} ({count})" for prefix, count in prefixes.most_common(_SHOWN))
    first = ", ".join(
        f"{shortened(name, 100)} {'x'.join(map(str, t.shape))}" for name, t in list(tensors.items())[:_SHOWN]
    )
    wanted = f" as '{arch}'" if arch else ""
    lines = [f"{printable(path)}: not recognised{wanted}", *faults]
    lines += [f"  {len(tensors)} tensors, by beginning: {seen}", f"  first: {first}", f"  {_readable()}"]
    return "\n".join(lines)


def _readable() -> str:
    """Say what can be read."""
    libraries = []
    for library in SOURCES:
        names = sorted({importer.architecture for importer in importers(library)})
        libraries.append(f"{load_source(library).title} ({', '.join(names)})")
    return f"can be read: {'; '.join(libraries)}"
