"""Which importer fits a file: found by the names and shapes of its tensors, of every library and below every prefix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from segatlas.checkpoint.hostile import told_as_weights_error
from segatlas.checkpoint.prefixes import PrefixedTensors, averaged, parts
from segatlas.checkpoint.reading import ReadWeights, read_state_dict
from segatlas.checkpoint.strangers import stranger_by_tensors
from segatlas.conversion.importers import SOURCES, importers, load_source
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.sidecar import find_settings
from segatlas.conversion.importers.source import Library
from segatlas.conversion.stated import overlaid, require_read
from segatlas.errors import SegAtlasError, UsageError, WeightsError
from segatlas.models import find_entry
from segatlas.printable import printable, shortened
from segatlas.structures import SemanticLogits

_SHOWN = 6
"""Names listed of a file that is not recognised."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """An importer that fits a file: the fields of the config that it read there, and what it took by default.

    asked: dotted paths of settings that it looked up.
    threshold: of a network with one logit a pixel, that of its sigmoid; None of any other.
    """

    importer: Importer
    fields: Mapping[str, Any]
    notes: tuple[str, ...]
    asked: frozenset[str] = frozenset()
    threshold: float | None = None


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


def find_importer(
    path: Path, *, arch: str | None = None, config: Path | None = None, stated: Mapping[str, Any] | None = None
) -> Match:
    """Read a weights file and find the importer that fits it.

    Args:
        path: of the file.
        arch: our name of the architecture; None = recognise it.
        config: the library's own configuration.
        stated: dotted path -> value, laid over the settings found.

    Raises:
        WeightsError: not readable, none fits, or several do.
        UsageError: an architecture that is not known, or for which no weights can be read; something stated for which
            the importer does not ask.
    """
    stated = stated or {}
    if arch is not None:
        arch = find_entry(arch)[0].name
        if not importers(architecture=arch):
            raise UsageError(f"no weights of other libraries can be read for '{arch}'; {_readable()}")
    read = read_state_dict(path)
    found: list[Match] = []
    faults: list[str] = []
    for part in parts(read.tensors):
        if not any(one.part.prefix and part.prefix.startswith(one.part.prefix) for one in found):
            found += _fitting(path, read, part, arch, config, stated, faults)
        if any(not one.part.prefix for one in found):
            break
    if not found:
        faults += _strangers(path, read, config)
        raise WeightsError(_not_recognised(path, read.tensors, list(dict.fromkeys(faults)), arch))
    if config is not None and not any(one.settings_from for one in found):
        raise UsageError(f"config: {config} is no configuration of {found[0].source.title}, of which the weights are")
    found = _of_one_prefix(path, found)
    if len(found) > 1:
        names = sorted(f"{one.recognised.importer.architecture} ({one.source.title})" for one in found)
        raise WeightsError(
            f"{printable(path)}: several architectures fit: {', '.join(names)}; choose one with --arch (arch=)"
        )
    recognised = found[0].recognised
    require_read(stated, recognised.asked, f"the {recognised.importer.architecture} of {found[0].source.title}")
    return found[0]


def _fitting(
    path: Path,
    read: ReadWeights,
    part: PrefixedTensors,
    arch: str | None,
    config: Path | None,
    stated: Mapping[str, Any],
    faults: list[str],
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
                named = source.settings_named(path.name)
                values = overlaid({**named, **settings.values}, stated)
            fitting = recognise(part.inside, values, arch=arch, source=library)
        except SegAtlasError as error:
            faults.append(f"  {source.title}: {error}")
            continue
        for one in fitting:
            told = [f"{key} = {value}, as the name of the file says" for key, value in named.items()
                    if values[key] == value and key not in stated]  # fmt: skip
            noted = replace(one, notes=(*settings.notes, *told, *one.notes))
            where = settings.where
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
                threshold = None if fields is None else _threshold(importer, fields, file)
        except SegAtlasError as error:
            faults.append(error)
            continue
        if fields is not None:
            notes, asked = tuple(file.notes), frozenset(file.asked)
            one = Recognised(importer=importer, fields=fields, notes=notes, asked=asked, threshold=threshold)
            found.append(one)
    if faults and not found:
        raise faults[0]
    return found


def _threshold(importer: Importer, fields: Mapping[str, Any], file: ForeignWeights) -> float | None:
    """Return the threshold of a network with one logit a pixel, None of any other."""
    if fields.get("num_classes") != 1 or find_entry(importer.architecture)[0].output != SemanticLogits.__name__:
        return None
    value = load_source(importer.source).threshold(file)
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise WeightsError(f"threshold: got {shortened(repr(value))}, expected a number between 0 and 1")
    return float(value)


def _may_fit(tensors: Mapping[str, Tensor], *, arch: str | None, source: str) -> bool:
    """Tell whether a fingerprint of a library fits; settings may be needed for the rest."""
    try:
        return bool(recognise(tensors, {}, arch=arch, source=source))
    except SegAtlasError:
        return True


def _strangers(path: Path, read: ReadWeights, config: Path | None) -> list[str]:
    """Say of the settings of a file that nothing fits which network they are of, where they tell it."""
    told = []
    for library in SOURCES:
        source = load_source(library)
        try:
            settings = find_settings(source, path, read, config).values
        except SegAtlasError:
            continue
        if fault := source.stranger(settings, _architectures(library)):
            told.append(f"  {source.title}: {fault}")
    return told


def _architectures(library: str) -> list[str]:
    return sorted({importer.architecture for importer in importers(library)})


def _not_recognised(path: Path, tensors: Mapping[str, Tensor], faults: list[str], arch: str | None) -> str:
    prefixes = Counter(name.partition(".")[0] for name in tensors)
    seen = ", ".join(f"{shortened(prefix)} ({count})" for prefix, count in prefixes.most_common(_SHOWN))
    first = ", ".join(
        f"{shortened(name, 100)} {'x'.join(map(str, t.shape))}" for name, t in list(tensors.items())[:_SHOWN]
    )
    wanted = f" as '{arch}'" if arch else ""
    if told := stranger_by_tensors(tensors):
        return f"{printable(path)}: not recognised{wanted}; by the names of its tensors: {told}"
    lines = [f"{printable(path)}: not recognised{wanted}", *faults]
    lines += [f"  {len(tensors)} tensors, by beginning: {seen}", f"  first: {first}"]
    return "\n".join(lines if faults else [*lines, f"  {_readable()}"])


def _readable() -> str:
    """Say of which libraries files can be read."""
    titles = ", ".join(load_source(library).title for library in SOURCES)
    return f"can be read: files of {titles}; of which networks: docs/importing.md"
